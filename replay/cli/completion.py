"""`replay completion`: what the shell needs to complete commands, options and names."""

from __future__ import annotations

import argparse
import shlex

from replay.errors import unknown_name

SHELLS = ("bash", "zsh", "fish")
EXAMPLES = """put it where the shell looks:
  replay completion bash > ~/.local/share/bash-completion/completions/replay
  replay completion zsh > ~/.zfunc/_replay      (with fpath+=~/.zfunc before compinit)
  replay completion fish > ~/.config/fish/completions/replay.fish
"""
_NO_FILES = ("help", "list", "completion", "doctor", "demo")
_PLUGINS = {"--design": "design", "--log": "log", "--policy": "policy"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `replay completion`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES + "\n" + (parser.epilog or "")
    parser.add_argument("shell", metavar="bash|zsh|fish", help="which shell")


def main(args: argparse.Namespace) -> int:
    """Print the script. Names of traces and plug-ins are those of now."""
    if args.shell not in SHELLS:
        raise unknown_name("shell", args.shell, SHELLS)
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell](), end="")
    return 0


def words() -> dict[str, list[str]]:
    """For each command its options and, where it has some, its own subcommands."""
    from replay.cli.main import COMMANDS
    from replay.cli.parser import command_parser

    found = {}
    for name, summary in COMMANDS.items():
        parser = command_parser(name, summary, "")
        options = [flag for action in parser._actions for flag in action.option_strings]
        nested = [
            choice
            for action in parser._actions
            if isinstance(action, argparse._SubParsersAction)
            for choice in action.choices
        ]
        found[name] = [*nested, *options]
    return found


def values() -> dict[str, list[str]]:
    """What may follow an option: plug-ins, cost tables, and the choices of a run's options."""
    import dataclasses

    from replay import plugins
    from replay.config import RunConfig, flag

    found = {option: plugins.names(kind) for option, kind in _PLUGINS.items()}
    found |= {
        flag(field.name): list(field.metadata["choices"])
        for field in dataclasses.fields(RunConfig)
        if field.metadata["choices"]
    }
    return found


def positions() -> dict[str, list[str]]:
    """What may stand for a command's argument, where that is not a trace."""
    from replay import plugins
    from replay.cli import export, plot, topics
    from replay.cli import list as lists
    from replay.reproducing import scenario

    essays = [name for kind in topics.KINDS for name in plugins.names(kind)]
    return {
        "help": [*(topic.name for topic in topics.TOPICS), *essays],
        "plot": [*plot.KINDS, *names()],
        "list": list(lists.KINDS),
        "export": list(export.FORMATS),
        "import": plugins.names("importer"),
        "capture": plugins.names("capture"),
        "check": plugins.names("design"),
        "reproduce": scenario.names(),
        "explain": ["seed-96g", *names()],
        "completion": list(SHELLS),
        "doctor": [],
        "demo": [],
    }


def names() -> list[str]:
    """What a trace may be called: shipped traces and workloads."""
    from replay import plugins
    from replay.trace import shipped

    return [*shipped.names(), *plugins.names("workload")]


def _bash() -> str:
    first = shlex.quote(" ".join([*words(), "--help", "--version", "--quiet", "--verbose"]))
    known_places, traces = positions(), names()
    cases = []
    for name, options in words().items():
        own, places = (shlex.quote(" ".join(some)) for some in (options, known_places.get(name, traces)))
        cases.append(f"    {name}) own={own} places={places} ;;")
    following = "\n".join(
        f'    {option}) COMPREPLY=($(compgen -W {shlex.quote(" ".join(known))} -- "$word")); return ;;'
        for option, known in values().items()
    )
    return f"""# bash completion of replay
_replay() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command= own= places= at
  # bash takes --option=value apart at the sign
  [[ $before == "=" && COMP_CWORD -gt 1 ]] && before=${{COMP_WORDS[COMP_CWORD-2]}}
  [[ $word == "=" ]] && word=
  for ((at = 1; at < COMP_CWORD; at++)); do
    [[ ${{COMP_WORDS[at]}} != -* ]] && {{ command=${{COMP_WORDS[at]}}; break; }}
  done
  if [[ -z $command ]]; then
    COMPREPLY=($(compgen -W {first} -- "$word"))
    return
  fi
  case $before in
{following}
  esac
  case $command in
{chr(10).join(cases)}
  esac
  COMPREPLY=($(compgen -W "$own" -- "$word"))
  [[ $word == -* ]] || COMPREPLY+=($(compgen -W "$places" -- "$word"))
  [[ $word == -* || " {" ".join(_NO_FILES)} " == *" $command "* ]] || COMPREPLY+=($(compgen -f -- "$word"))
}}
complete -o filenames -F _replay replay
"""


def _zsh() -> str:
    return "#compdef replay\nautoload -U +X bashcompinit && bashcompinit\n" + _bash()


def _fish() -> str:
    from replay.cli.main import COMMANDS

    lines = ["# fish completion of replay", "complete -c replay -n __fish_use_subcommand -f"]
    for name, summary in COMMANDS.items():
        lines.append(f"complete -c replay -n __fish_use_subcommand -a {name} -d {shlex.quote(summary)}")
    for name, known in words().items():
        seen = f"'__fish_seen_subcommand_from {name}'"
        for word in known:
            how = (
                f"-l {word[2:]}"
                if word.startswith("--")
                else f"-s {word[1:]}"
                if word.startswith("-")
                else f"-a {word}"
            )
            takes = values().get(word)
            lines.append(
                f"complete -c replay -n {seen} {how}" + (f" -x -a {shlex.quote(' '.join(takes))}" if takes else "")
            )
    known_places, traces = positions(), names()
    for name in COMMANDS:
        places = known_places.get(name, traces)
        if places:
            lines.append(
                f"complete -c replay -n '__fish_seen_subcommand_from {name}' -a {shlex.quote(' '.join(places))}"
            )
    return "\n".join(lines) + "\n"
