s/nksample_add(int a, int b)/nksample_add(int a, long b)/
s/CLAMP(a + b/CLAMP(a + (int)b/
