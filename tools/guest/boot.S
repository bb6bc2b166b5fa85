/* A guest without an operating system, for a KVM that cannot boot one: a boot sector in real mode that says "ready" on
 * the first serial port, and then writes one word to each of the 128 pages from 64 KiB to 576 KiB, in order, for ever,
 * with a pause after each. */
    .code16
    .globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ss
    mov %ax, %ds
    mov $0x7c00, %sp
    cld
    mov $ready, %si
    mov $0x3f8, %dx
say:
    lodsb
    test %al, %al
    jz again
    out %al, %dx
    jmp say
again:
    mov $0x1000, %bx            /* segments count 16 bytes */
page:
    mov %bx, %ds
    incw 0
    mov $2000, %cx
pause:
    loop pause
    add $0x100, %bx
    cmp $0x9000, %bx
    jb page
    jmp again
ready:
    .asciz "writer: ready\r\n"
    .org 510
    .word 0xaa55
