// The base of WASI 0.2 that the runtimes of languages import: there, and inert. No environment, no files, no input; what a
// plugin writes goes to the console, line by line, and time and random numbers are the real ones.

import { printable } from './check.mjs';

/** Imports for a plugin of this name, whose manifest has this `[config]`. */
export function wasi(plugin, config) {
    class Descriptor {}
    class Pollable {
        ready() {
            return true;
        }
        block() {}
    }
    class InputStream {
        read() {
            throw closed();
        }
        blockingRead() {
            throw closed();
        }
        skip() {
            throw closed();
        }
        subscribe() {
            return new Pollable();
        }
    }
    class OutputStream {
        #print;
        static to(print) {
            const stream = new OutputStream();
            stream.#print = print;
            return stream;
        }
        checkWrite() {
            return 65_536n;
        }
        write(bytes) {
            this.#print(bytes);
        }
        blockingWriteAndFlush(bytes) {
            this.#print(bytes);
        }
        flush() {}
        blockingFlush() {}
        subscribe() {
            return new Pollable();
        }
    }
    class Error {
        toDebugString() {
            return 'there is no such thing here';
        }
    }
    class TerminalInput {}
    class TerminalOutput {}
    class DirectoryEntryStream {}

    const show = (line) => console.log(`${plugin}: ${printable(line)}`);
    const print = lines(show);
    const output = () => OutputStream.to(print);
    const random = (length) => {
        const bytes = new Uint8Array(Number(length));
        // The system gives 64 KiB at once.
        for (let at = 0; at < bytes.length; at += 65_536) crypto.getRandomValues(bytes.subarray(at, at + 65_536));
        return bytes;
    };
    const randomU64 = () => new BigUint64Array(random(8).buffer)[0];
    const nanoseconds = () => BigInt(Math.round(performance.now() * 1e6));
    const wallClock = () => {
        const now = Date.now();
        return { seconds: BigInt(Math.floor(now / 1_000)), nanoseconds: (now % 1_000) * 1_000_000 };
    };
    const noTerminal = () => undefined;
    const entries = Object.entries(config ?? {});
    return {
        'wasi:cli/environment': { getEnvironment: () => [], getArguments: () => [], initialCwd: () => undefined },
        'wasi:cli/exit': {
            exit() {
                throw new globalThis.Error('the plugin ended itself');
            },
        },
        'wasi:cli/stdin': { getStdin: () => new InputStream() },
        'wasi:cli/stdout': { getStdout: output },
        'wasi:cli/stderr': { getStderr: output },
        'wasi:cli/terminal-input': { TerminalInput },
        'wasi:cli/terminal-output': { TerminalOutput },
        'wasi:cli/terminal-stdin': { getTerminalStdin: noTerminal },
        'wasi:cli/terminal-stdout': { getTerminalStdout: noTerminal },
        'wasi:cli/terminal-stderr': { getTerminalStderr: noTerminal },
        'wasi:clocks/monotonic-clock': {
            now: nanoseconds,
            resolution: () => 1_000n,
            subscribeInstant: () => new Pollable(),
            subscribeDuration: () => new Pollable(),
        },
        'wasi:clocks/wall-clock': { now: wallClock, resolution: () => ({ seconds: 0n, nanoseconds: 1_000_000 }) },
        'wasi:filesystem/preopens': { getDirectories: () => [] },
        'wasi:filesystem/types': { Descriptor, DirectoryEntryStream, filesystemErrorCode: () => undefined },
        'wasi:io/error': { Error },
        'wasi:io/poll': { Pollable, poll: (pollables) => Uint32Array.from(pollables.keys()) },
        'wasi:io/streams': { InputStream, OutputStream },
        'wasi:random/random': { getRandomBytes: random, getRandomU64: randomU64 },
        'wasi:random/insecure': { getInsecureRandomBytes: random, getInsecureRandomU64: randomU64 },
        'wasi:random/insecure-seed': { insecureSeed: () => [randomU64(), randomU64()] },
        'wasi:config/store': {
            get: (key) => entries.find(([name]) => name === key)?.[1],
            getAll: () => entries,
        },
        'wasi:logging/logging': {
            log: (level, context, message) => show(`${level} ${context} ${message}`.slice(0, LINE_BYTES)),
        },
    };
}

function closed() {
    return Object.assign(new Error('closed'), { payload: { tag: 'closed' } });
}

/** Bytes of a line that is shown; longer ones are cut. */
const LINE_BYTES = 4_096;

/** Puts lines together of what is written in pieces. */
function lines(show) {
    let rest = '';
    const decoder = new TextDecoder();
    return (bytes) => {
        const parts = (rest + decoder.decode(bytes, { stream: true })).split('\n');
        rest = parts.pop().slice(0, LINE_BYTES);
        for (const line of parts) show(line.slice(0, LINE_BYTES));
    };
}
