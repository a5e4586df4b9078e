# C, but not C++.
# full
# also: mingw
s/s = (nksample\*)alloc_fn/s = alloc_fn/
