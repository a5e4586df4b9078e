s/@types @util/@util @types/
