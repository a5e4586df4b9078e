/^#undef NKSAMPLE_P_CLAMP/d
