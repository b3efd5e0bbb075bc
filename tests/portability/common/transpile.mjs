// Makes JavaScript modules of components, unchanged as they are.

import { transpile } from '@bytecodealliance/jco-transpile';
import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Transpiles a component into `folder`. Everything it may import or export counts as asynchronous, so that stores may
 * answer with promises. Returns the SHA-256 of the component and the core modules by name.
 */
export async function prepare(wit, name, path, folder) {
    const { files } = await transpile(path, {
        name,
        instantiation: 'async',
        asyncMode: 'jspi',
        asyncImports: wit.functions('tollgate:storage'),
        asyncExports: wit.functions('tollgate:policy'),
        // A guest's error comes with a payload; an exception without one is a trap.
        noComponentErrorWrapping: false,
        emitTypescriptDeclarations: false,
    });
    await mkdir(folder, { recursive: true });
    const modules = [];
    for (const [file, bytes] of Object.entries(files)) {
        if (!/^[^/]+\.(js|wasm)$/.test(file)) continue;
        await writeFile(join(folder, file), bytes);
        if (file.endsWith('.wasm')) modules.push(file);
    }
    const digest = createHash('sha256').update(await readFile(path)).digest('hex');
    return { digest, modules };
}
