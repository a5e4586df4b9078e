# Something only the optimiser's warnings would find; __OPTIMIZE__ stands for it.
# full
# also: std m32 mingw
s/^    int total;/&\
#ifdef __OPTIMIZE__\
&\
#endif/
