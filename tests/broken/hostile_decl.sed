# also: hostile_impl
s/add(int a, int b)/add(int small, int b)/
s/CLAMP(a + b/CLAMP(small + b/
