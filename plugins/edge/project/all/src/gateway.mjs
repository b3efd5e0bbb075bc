// The way of a request, yours to change: admit it, forward it, settle it with what was used, record it.

/** Time between two words to the plugins that a request still runs: three chances within a lease of a minute. */
const RENEW_MS = 20_000;

/**
 * Answers a request. `policies`: the plugins; `settings`: UPSTREAM, UPSTREAM_KEY and CLIENT_RPM, all optional; `record`: takes
 * the record of a request that ended; `later`: takes a promise of work that goes on after the answer.
 */
export async function answer(request, { policies, settings, record, later }) {
    const began = Date.now();
    const key = request.headers.get('authorization')?.replace(/^Bearer /, '');
    if (!key) return refused(401, { reason: 'send a key: Authorization: Bearer KEY' });
    const body = await request.text();
    const asked = parsed(body);
    // Whoever has a key may come in, and each key is a client of its own; look yours up here.
    const client = { kind: 'client', id: await sha256(key), name: 'client', limits: limitsOf(settings) };
    const account = { kind: 'account', id: await sha256(settings.UPSTREAM_KEY ?? ''), name: 'upstream', limits: { further: [] } };
    const prompt = Math.ceil(body.length / 3);
    const about = {
        id: crypto.randomUUID(),
        'now-ms': began,
        dialect: 'openai',
        endpoint: new URL(request.url).pathname,
        model: String(asked.model ?? ''),
        'prompt-tokens': prompt,
        'estimated-tokens': prompt + Number(asked.max_tokens ?? 1_024),
        streaming: asked.stream === true,
    };
    let renewing;
    const admitted = await policies.admit(about, [client, account]);
    if (admitted.refusal) {
        const { denial, failed, subject } = admitted.refusal;
        const ofAccount = !failed && subject.kind === 'account';
        later(ended({ status: failed ? 503 : 429, ending: 'never-sent', ofAccount }));
        if (failed) return refused(503, { reason: 'a policy failed' });
        return refused(429, { reason: denial.reason, limit: denial['limit-name'] }, denial['retry-after-ms']);
    }

    renewing = setInterval(() => later(admitted.renew({ 'duration-ms': Date.now() - began })), RENEW_MS);
    let response;
    try {
        response = await forward(request, body, settings);
    } catch (error) {
        later(ended({ status: 502, ending: 'upstream-error', message: String(error) }));
        return refused(502, { reason: 'the upstream does not answer' });
    }
    const headers = new Headers(response.headers);
    // The body is read here, and so no longer encoded.
    for (const name of ['content-encoding', 'content-length']) headers.delete(name);
    const [stream, end] = watched(response.body);
    later(end.then((used) => ended({ status: response.status, upstream: response.status, ...used })));
    return new Response(stream, { status: response.status, headers });

    /** Settles, where it was admitted, and records how the request went. */
    async function ended({ status, upstream, ending, ofAccount, input = 0, output = 0, size = 0, message }) {
        clearInterval(renewing);
        const duration = Date.now() - began;
        const tokens = { 'input-tokens': input, 'output-tokens': output };
        const type = ofAccount ? 'upstream_rate_limit' : errorType(status, upstream, ending);
        await admitted.settle?.({ ending, status: upstream, ...tokens, 'duration-ms': duration });
        await record({
            'request-id': about.id,
            'time-ms': began,
            'client-type': 'openai',
            'client-ip': request.headers.get('cf-connecting-ip') ?? '',
            'user-agent': request.headers.get('user-agent') ?? '',
            'client-key-hash': client.id,
            'client-name': client.name,
            'api-key-hash': ending === 'never-sent' ? '' : account.id,
            'account-name': ending === 'never-sent' ? '' : account.name,
            model: about.model,
            'original-model': about.model,
            endpoint: about.endpoint,
            method: request.method,
            referer: request.headers.get('referer') ?? '',
            'response-time-ms': duration,
            'status-code': ending === 'client-aborted' ? 499 : status,
            ...tokens,
            'cache-read-tokens': 0,
            'cache-write-tokens': 0,
            'reasoning-tokens': 0,
            'token-source': input + output > 0 ? 'reported' : '',
            'is-stream': about.streaming,
            'has-error': type !== '',
            'error-type': type,
            'error-message': message,
            'request-size': body.length,
            'response-size': size,
            attempts: [],
        });
    }
}

function limitsOf({ CLIENT_RPM }) {
    return { rpm: CLIENT_RPM ? Number(CLIENT_RPM) : undefined, further: [] };
}

/** Whose fault an error is: the policies', which refuse with 429, or the upstream's. */
function errorType(status, upstream, ending) {
    if (ending === 'client-aborted') return 'client_closed';
    if (ending === 'upstream-error' && upstream < 400) return 'stream';
    if (status < 400) return '';
    if (upstream === undefined) return { 429: 'rate_limit', 502: 'upstream' }[status] ?? 'unavailable';
    const kind = {
        401: 'upstream_auth',
        402: 'upstream_payment',
        403: 'upstream_auth',
        408: 'upstream_timeout',
        429: 'upstream_rate_limit',
        504: 'upstream_timeout',
    }[upstream];
    return kind ?? (upstream < 500 ? 'invalid_request' : 'upstream');
}

/** Without an upstream it answers itself, to be tried out. */
async function forward(request, body, { UPSTREAM, UPSTREAM_KEY }) {
    if (!UPSTREAM) {
        const message = { role: 'assistant', content: 'Hello from the edge.' };
        const usage = { prompt_tokens: 3, completion_tokens: 5, total_tokens: 8 };
        return Response.json({ object: 'chat.completion', choices: [{ index: 0, message }], usage });
    }
    const { pathname, search } = new URL(request.url);
    const headers = { 'content-type': request.headers.get('content-type') ?? 'application/json' };
    if (UPSTREAM_KEY) headers.authorization = `Bearer ${UPSTREAM_KEY}`;
    const hasBody = !['GET', 'HEAD'].includes(request.method);
    return fetch(new URL(pathname + search, UPSTREAM), { method: request.method, headers, body: hasBody ? body : undefined });
}

/** Bytes at the end of an answer that are looked through for what was used. */
const TAIL_BYTES = 65_536;

/** A stream of the same bytes, and a promise of how it ended and what was used. */
function watched(body) {
    if (!body) return [null, Promise.resolve({ ending: 'completed' })];
    const reader = body.getReader();
    const decoder = new TextDecoder();
    let [tail, size] = ['', 0];
    const end = Promise.withResolvers();
    const stream = new ReadableStream({
        async pull(controller) {
            try {
                const { done, value } = await reader.read();
                if (done) {
                    end.resolve({ ending: 'completed', size, ...usageIn(tail) });
                    return controller.close();
                }
                size += value.length;
                tail = (tail + decoder.decode(value, { stream: true })).slice(-TAIL_BYTES);
                controller.enqueue(value);
            } catch (error) {
                end.resolve({ ending: 'upstream-error', size, message: String(error) });
                controller.error(error);
            }
        },
        cancel(reason) {
            end.resolve({ ending: 'client-aborted', size, ...usageIn(tail) });
            return reader.cancel(reason);
        },
    });
    return [stream, end.promise];
}

/** The last counts of tokens in an answer, a whole one or the events of a stream. */
function usageIn(text) {
    const last = (name) => Number([...text.matchAll(new RegExp(`"${name}"\\s*:\\s*(\\d+)`, 'g'))].at(-1)?.[1] ?? 0);
    return { input: last('prompt_tokens'), output: last('completion_tokens') };
}

function refused(status, error, retryAfterMs) {
    const headers = retryAfterMs ? { 'retry-after': String(Math.ceil(retryAfterMs / 1_000)) } : {};
    return Response.json({ error }, { status, headers });
}

function parsed(body) {
    try {
        return Object(JSON.parse(body));
    } catch {
        return {};
    }
}

async function sha256(text) {
    const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
    return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
