/* Weights that all networks share: random numbers, of which each reads the first. An assembler takes them as they are,
 * where a compiler would need gigabytes for as many literals. */
    .section .rodata
    .balign 64
    .global probe_weights
    .type probe_weights, %object
probe_weights:
    .incbin "weights.bin"
    .size probe_weights, . - probe_weights
    .section .note.GNU-stack, "", %progbits
