# full
# also: std
s/^    int total;/&\
#if defined(__STDC_VERSION__) \&\& __STDC_VERSION__ >= 201112L\
&\
#endif/
