s/^    uint8_t wire\[2\];/#ifndef DEBUG\
&\
#endif\
#ifdef DEBUG\
&\
#endif/
