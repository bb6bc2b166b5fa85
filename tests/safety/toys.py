"""Small protocols with known answers."""

from __future__ import annotations

from replay.safety.model import BIT, EMPTY, Bounds, Model


def lost_update(locked: bool = False) -> Model:
    """Two actors add 1 to a counter with a load and a store; what is lost shows as an old page."""
    model = Model(Bounds(pages=1))
    model.old = model.pages("old")
    counter, lock = model.number("counter"), model.number("lock")
    actors = []
    for name in ("left", "right"):
        actor = model.actor(name, "start")
        actors.append(actor)
        held = model.number(f"{name}-loaded")

        def load(s, page, held=held):
            if locked and s[lock]:
                return None
            s[lock] = 1
            s[held] = s[counter]
            return "store"

        def store(s, page, held=held):
            s[counter] = s[held] + 1
            s[lock] = 0
            return "end"

        model.step(actor, "start", "load", load)
        model.step(actor, "store", "store", store)
        model.place("end")
    judge = model.actor("judge", "wait")

    def look(s, page):
        if any(s[actor] != model.place("end") for actor in actors):
            return None
        s[model.old] = EMPTY if s[counter] == 2 else EMPTY | 1
        return "over"

    model.step(judge, "wait", "look", look)
    model.done_at = (judge, "over")
    return model


def mutual_exclusion(kind: str) -> Model:
    """Two actors enter a section once each: `peterson`, `check-then-set` (both get in), or `polite` (nobody does)."""
    model = Model(Bounds(pages=1))
    model.old = model.pages("old")
    inside, turn = model.number("inside"), model.number("turn")
    wants = [model.number("wants0"), model.number("wants1")]
    ended = model.number("ended")
    for me in (0, 1):
        actor = model.actor(f"p{me}", "start")

        def ask(s, page, me=me):
            if kind == "check-then-set":
                return "set" if not s[wants[1 - me]] else None
            s[wants[me]] = 1
            return "give" if kind == "peterson" else "wait"

        def set_flag(s, page, me=me):
            s[wants[me]] = 1
            return "inside" if enter(s) else None

        def give(s, page, me=me):
            s[turn] = 1 - me
            return "wait"

        def wait(s, page, me=me):
            if s[wants[1 - me]] and (kind == "polite" or s[turn] != me):
                return None
            return "inside" if enter(s) else None

        def enter(s):
            if s[inside]:
                s[model.old] = EMPTY | 1
            s[inside] += 1
            return True

        def leave(s, page, me=me):
            s[inside] -= 1
            s[wants[me]] = 0
            s[ended] += 1
            return "gone"

        model.step(actor, "start", "ask", ask)
        model.step(actor, "set", "set", set_flag)
        model.step(actor, "give", "give way", give)
        model.step(actor, "wait", "enter", wait)
        model.step(actor, "inside", "leave", leave)
        model.place("gone")
    judge = model.actor("judge", "look")
    model.step(judge, "look", "all gone", lambda s, page: "over" if s[ended] == 2 else None)
    model.done_at = (judge, "over")
    return model


def spinner(way_out: bool) -> Model:
    """One actor turns a number round and round; the way out exists, or exists only before the first turn."""
    model = Model(Bounds(pages=1))
    model.old = model.pages("old")
    number, turned = model.number("number"), model.number("turned")
    actor = model.actor("spinner", "here")

    def turn(s, page):
        s[number], s[turned] = (s[number] + 1) % 3, 1
        return "here"

    model.step(actor, "here", "turn", turn)
    model.step(actor, "here", "leave", lambda s, page: "over" if way_out or not s[turned] else None)
    model.done_at = (actor, "over")
    return model


def two_queues(fair: bool) -> Model:
    """A server with an endless queue and one page that waits; a fair one serves them in turns."""
    model = Model(Bounds(pages=1))
    model.old = model.pages("old")
    waiting = model.pages("waiting", EMPTY | 1)
    turn = model.number("turn")
    server = model.actor("server", "serve")

    def other(s, page):
        if fair and s[turn]:
            return None
        s[turn] = 1 - s[turn] if fair else 0
        return "serve"

    def mine(s, page):
        s[waiting] &= ~BIT[page]
        s[turn] = 0
        return "serve"

    model.step(server, "serve", "serve others", other)
    model.step(server, "serve", "serve", mine, among=waiting)
    model.step(server, "serve", "leave", lambda s, page: "over" if s[waiting] == EMPTY else None)
    model.done_at = (server, "over")
    return model
