// What calls of plugins may have, as wit/storage/ says it; engines with less say so themselves.

export const KV_KEY_BYTES = 512;
export const VALUE_BYTES = 1 << 20;
export const LIST_ITEMS = 1_000;
export const LIST_BYTES = 8 << 20;

export const BATCH_STATEMENTS = 10_000;

export const BLOB_KEY_BYTES = 1_024;
export const BLOB_GET_BYTES = 8 << 20;
export const BLOB_PIECE_BYTES = 1 << 20;
export const OBJECT_BYTES = 100 << 20;
export const HEADER_BYTES = 256;
export const METADATA_ENTRIES = 32;
export const METADATA_NAME_BYTES = 64;
export const METADATA_BYTES = 2_048;
export const ETAGS = 16;
export const DELIMITER_BYTES = 16;
export const READERS = 32;
export const WRITERS = 4;

export const ID_BYTES = 512;
export const NAMESPACE_BYTES = 64;
export const VECTOR_METADATA_BYTES = 10 << 10;
export const FILTER_BYTES = 2_048;
export const FILTER_VALUES = 100;
export const TOP_K = 100;
export const GET_IDS = 100;
/** Every query compares with each vector, so an index is smaller than in Tollgate. */
export const VECTORS = 10_000;

export const CACHE_TTL_MS = 86_400_000;

/** A ticket of a policy. */
export const TICKET_BYTES = 1_024;
/** Events that one call of a plugin takes. */
export const EVENTS = 500;
/** Times that an event is offered alone before it is set aside. */
export const EVENT_TRIES = 5;
/** How long an event is known again that comes twice. */
export const EVENT_KNOWN_MS = 86_400_000;
