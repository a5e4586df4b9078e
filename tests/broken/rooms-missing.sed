s/^            @api  /            @api @gone  /
