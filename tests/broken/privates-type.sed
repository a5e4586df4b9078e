s/^struct nksample {/struct helper {\
    int unused;\
};\
&/
