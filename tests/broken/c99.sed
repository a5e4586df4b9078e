# also: c11 ndebug two_static hooks hostile_impl slices unity std m32 mingw
s/^    nksample_p_put16(wire/    int late = a;\
    (void)later;\
&/
s/(void)later/late = late + 0.5/
