// Makes JavaScript modules of the components of a project, which stay as they are.
//
//     node tollgate/build.mjs worker|node

import { transpile } from '@bytecodealliance/jco-transpile';
import { createHash } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { Contracts } from './contracts.mjs';

const root = join(import.meta.dirname, '..');
const json = async (name) => JSON.parse(await readFile(join(root, name), 'utf8'));

/** How a project of each kind comes to its core modules. */
const CORES = {
    worker: {
        head: [],
        inline: importInline,
        one: (variable, path) => `import ${variable} from ${JSON.stringify(path)};`,
    },
    node: {
        inline: (text) => ({ text, files: {} }),
        head: [
            `import { readFile } from 'node:fs/promises';`,
            `const compiled = async (path) => WebAssembly.compile(await readFile(new URL(path, import.meta.url)));`,
        ],
        one: (variable, path) => `const ${variable} = await compiled(${JSON.stringify(path)});`,
    },
};

async function build(kind) {
    const cores = CORES[kind];
    if (!cores) throw new Error(`node tollgate/build.mjs ${Object.keys(CORES).join('|')}`);
    const [contracts, plugins, stores] = await Promise.all(
        ['tollgate/contracts.json', 'plugins.json', 'stores.json'].map(json),
    );
    const functions = new Contracts(contracts);
    await rm(join(root, 'build'), { recursive: true, force: true });
    const lines = [];
    const made = [];
    for (const [at, plugin] of plugins.entries()) {
        const modules = await prepare(functions, plugin, cores.inline);
        lines.push(`import { instantiate as start${at} } from './${plugin.name}/${plugin.name}.js';`);
        const named = modules.map((file, core) => {
            lines.push(cores.one(`core${at}_${core}`, `./${plugin.name}/${file}`));
            return `${JSON.stringify(file)}: core${at}_${core}`;
        });
        const core = `(name) => ({ ${named.join(', ')} })[name]`;
        made.push(`    ${JSON.stringify(plugin.name)}: { instantiate: start${at}, core: ${core} },`);
    }
    const data = Object.entries({ contracts, plugins, stores });
    const exports = data.map(([name, value]) => `export const ${name} = ${JSON.stringify(value)};`);
    const text = [...cores.head, ...lines, ...exports, 'export const made = {', ...made, '};', ''].join('\n');
    await writeFile(join(root, 'build/project.mjs'), text);
}

/**
 * Transpiles a component into build/NAME. Every function of the stores and every hook counts as asynchronous, so that stores may
 * answer with promises. Returns the names of the core modules.
 */
async function prepare(contracts, { name, file, digest }, inline) {
    const found = createHash('sha256').update(await readFile(join(root, file))).digest('hex');
    if (found !== digest) throw new Error(`${file} is not the component of plugins.json: its SHA-256 is ${found}`);
    const { files } = await transpile(join(root, file), {
        name,
        instantiation: 'async',
        asyncMode: 'jspi',
        asyncImports: contracts.functions('tollgate:storage'),
        asyncExports: contracts.functions('tollgate:policy'),
        // A guest's error comes with a payload; an exception without one is a trap.
        noComponentErrorWrapping: false,
        emitTypescriptDeclarations: false,
    });
    const folder = join(root, 'build', name);
    await mkdir(folder, { recursive: true });
    const modules = [];
    for (const [made, bytes] of Object.entries(files)) {
        if (!/^[^/]+\.(js|wasm)$/.test(made)) continue;
        if (made.endsWith('.wasm')) {
            modules.push(made);
            await writeFile(join(folder, made), bytes);
            continue;
        }
        const { text, files: more } = inline(new TextDecoder().decode(bytes));
        await writeFile(join(folder, made), text);
        for (const [file, bytes] of Object.entries(more)) await writeFile(join(folder, file), bytes);
    }
    return modules;
}

/** A small module that jco writes into its JavaScript, as bytes. */
const INLINE = /new WebAssembly\.Module\(new Uint8Array\(\[([^\]]*)\]\)\)/g;

/** Workers compile nothing when they run, so such modules become files that are imported. */
function importInline(text) {
    const files = {};
    const imports = [];
    const replaced = text.replace(INLINE, (_, list) => {
        const file = `inline${imports.length}.wasm`;
        const variable = `inlineModule${imports.length}`;
        files[file] = Uint8Array.from(list.split(',').filter((byte) => byte.trim()), Number);
        imports.push(`import ${variable} from './${file}';\n`);
        return variable;
    });
    return { text: imports.join('') + replaced, files };
}

await build(process.argv[2]);
