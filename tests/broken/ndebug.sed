s/^    uint8_t wire\[2\];/    int before = a;\
&/
s/^    nksample_p_put16(wire/    NETKIT_SAMPLE_ASSERT(before == a);\
&/
