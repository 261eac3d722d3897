"""The data dictionary of PS3.6: what each tag is called and holds, found by tag or by keyword.

The tables are constants of `dictionary.h`, which only `dictionary.pyx` includes: there is one copy of them.
Entries live as long as the process; of two pointers to entries, equal ones are the same element.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from *:
    """
    #include <stdint.h>
    typedef struct {
        uint32_t tag;
        uint16_t vr, vr2, vr3;
        uint8_t vm_least, vm_most, vm_step, retired, keyword_size, name_size;
        const char *keyword, *name;
    } pc_entry;
    """
    ctypedef struct Entry "pc_entry":
        uint32_t tag           # of a repeating group, with 0 for each x: 60000010 of (60xx,0010)
        uint16_t vr            # its letters, first << 8 | second; 0: none (items and their delimiters)
        uint16_t vr2           # where the data set decides (US or SS): the second choice; else 0
        uint16_t vr3
        uint8_t vm_least       # number of values
        uint8_t vm_most        # 0: any number
        uint8_t vm_step        # 2 in 2-2n
        uint8_t retired
        uint8_t keyword_size
        uint8_t name_size
        const char* keyword    # ASCII, as is the name; of some retired elements either is empty
        const char* name


# NULL if the standard does not know the tag. Elements of PS3.6 come first, repeating groups with them; then
# the group length of any other group, GenericGroupLength (PS3.5 7.2); and PrivateCreator (PS3.5 7.8.1), the
# only other one that a private tag gets. The last two have the first tag of the many that they stand for.
cdef const Entry* entry_of(uint32_t tag) noexcept nogil

# NULL if there is none. Not the keywords of repeating groups: they do not say which of their tags they mean.
cdef const Entry* entry_of_keyword(const char* keyword, size_t size) noexcept nogil
