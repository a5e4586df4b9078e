# A type with the prefix of the other header.
# also: privates
s/^struct nksample {/struct nkother { int unused; };\
&/
