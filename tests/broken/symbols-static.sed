s/nksample_p_put16/put16/g
# also: shared
