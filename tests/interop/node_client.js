// Called by node.sh with the port of http_echo.
'use strict';
const http = require('http');
const port = Number(process.argv[2]);
const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
let passed = 0, failed = 0;

function ask(method, body, headers) {
    return new Promise((resolve) => {
        const rq = http.request({ port, host: '127.0.0.1', method, path: '/x', agent, headers }, (rs) => {
            const parts = [];
            rs.on('data', (d) => parts.push(d));
            rs.on('end', () => {
                const got = Buffer.concat(parts);
                if (rs.statusCode === 200 && (method === 'HEAD' ? got.length === 0 : got.equals(body))) passed++;
                else { failed++; console.log(`${method} of ${body.length}: status ${rs.statusCode}, ${got.length} bytes`); }
                resolve();
            });
        });
        rq.on('error', (e) => { failed++; console.log(`${method} of ${body.length}: ${e.message}`); resolve(); });
        rq.end(body);
    });
}

(async () => {
    const jobs = [];
    for (let i = 0; i < 300; i++) {
        const body = Buffer.alloc((i * 977) % 50000, 65 + i % 26);
        const length = { 'Content-Length': body.length };
        jobs.push(ask(i % 3 === 0 ? 'PUT' : 'POST', body, i % 2 ? length : { 'Transfer-Encoding': 'chunked' }));
    }
    jobs.push(ask('HEAD', Buffer.alloc(0)), ask('DELETE', Buffer.alloc(0)), ask('PATCH', Buffer.from('p'), { 'Content-Length': 1 }));
    await Promise.all(jobs);
    agent.destroy();
    console.log(`${passed} passed, ${failed} failed`);
    process.exit(failed ? 1 : 0);
})();
