/^#error/d
