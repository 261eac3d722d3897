"""Value representations: what each holds and which header form it has in explicit VR (PS3.5 6.2, 7.1.2)."""

from libc.stdint cimport uint8_t

# What a value is made of; with VR_LONG, its header has two reserved bytes and a length of four.
cdef enum:
    VR_UNKNOWN = 0
    VR_ASCII = 1       # AE AS CS DA DS DT IS TM UI: default repertoire, spaces around a value insignificant
    VR_TEXT = 2        # LO SH: Specific Character Set, spaces around a value insignificant
    VR_NAME = 3        # PN: as VR_TEXT, with component groups
    VR_PROSE = 4       # LT ST UT: one value, only trailing spaces insignificant
    VR_RESOURCE = 5    # UR: one value, default repertoire, only trailing spaces insignificant
    VR_UNLIMITED = 6   # UC: several values, only trailing spaces insignificant
    VR_US = 10
    VR_SS = 11
    VR_UL = 12
    VR_SL = 13
    VR_UV = 14
    VR_SV = 15
    VR_FL = 16
    VR_FD = 17
    VR_AT = 18
    VR_OPAQUE = 20     # OB OD OF OL OV OW
    VR_SQ = 21
    VR_UN = 22
    VR_KIND = 0x3F
    VR_LONG = 0x80

cdef extern from *:
    """
    #include <stdint.h>
    #define PC_VR(a, b) [((a) - 'A') * 26 + (b) - 'A']
    static const uint8_t pc_vr_kinds[26 * 26] = {
        PC_VR('A', 'E') = 1, PC_VR('A', 'S') = 1, PC_VR('C', 'S') = 1, PC_VR('D', 'A') = 1,
        PC_VR('D', 'S') = 1, PC_VR('D', 'T') = 1, PC_VR('I', 'S') = 1, PC_VR('T', 'M') = 1,
        PC_VR('U', 'I') = 1, PC_VR('L', 'O') = 2, PC_VR('S', 'H') = 2, PC_VR('P', 'N') = 3,
        PC_VR('L', 'T') = 4, PC_VR('S', 'T') = 4, PC_VR('U', 'T') = 0x84, PC_VR('U', 'R') = 0x85,
        PC_VR('U', 'C') = 0x86, PC_VR('U', 'S') = 10, PC_VR('S', 'S') = 11, PC_VR('U', 'L') = 12,
        PC_VR('S', 'L') = 13, PC_VR('U', 'V') = 0x8E, PC_VR('S', 'V') = 0x8F, PC_VR('F', 'L') = 16,
        PC_VR('F', 'D') = 17, PC_VR('A', 'T') = 18, PC_VR('O', 'B') = 0x94, PC_VR('O', 'D') = 0x94,
        PC_VR('O', 'F') = 0x94, PC_VR('O', 'L') = 0x94, PC_VR('O', 'V') = 0x94, PC_VR('O', 'W') = 0x94,
        PC_VR('S', 'Q') = 0x95, PC_VR('U', 'N') = 0x96,
    };
    """
    const uint8_t[676] pc_vr_kinds


cdef inline bint vr_capital(uint8_t c) noexcept nogil:
    return <uint8_t>(c - 65) < 26


cdef inline uint8_t vr_kind(const uint8_t* p) noexcept nogil:
    """What the VR in the two bytes at `p` holds, with VR_LONG; VR_UNKNOWN if it is none of the standard's."""
    if vr_capital(p[0]) and vr_capital(p[1]):
        return pc_vr_kinds[(p[0] - 65) * 26 + p[1] - 65]
    return VR_UNKNOWN
