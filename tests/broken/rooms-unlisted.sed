s/@types @util/@types/
