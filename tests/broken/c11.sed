s/^    int total;/&\
#if __STDC_VERSION__ >= 201112L\
    int total;\
#endif/
