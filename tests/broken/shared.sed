s/^    p\[1\] = (uint8_t)v;/    p[1] = (uint8_t)(v \& 255u);/
