s/^    uint8_t wire\[2\];/#if defined(__linux__)\
&\
#else\
&\
#endif/
