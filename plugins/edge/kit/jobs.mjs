// Which jobs are due.

/** Whether a job's time comes after `from` and not after `to`, both in milliseconds since 1970, less than a day apart. */
export function isDue(timing, from, to) {
    if ('every' in timing) return Math.floor(from / timing.every) < Math.floor(to / timing.every);
    const matches = cron(timing.cron);
    for (let minute = Math.floor(from / 60_000) + 1; minute * 60_000 <= to; minute += 1) {
        if (matches(new Date(minute * 60_000))) return true;
    }
    return false;
}

const MONTHS = ['JAN', 'FEB', 'MAR', 'APR', 'MAY', 'JUN', 'JUL', 'AUG', 'SEP', 'OCT', 'NOV', 'DEC'];
const DAYS = ['SUN', 'MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT', 'SUN'];

const FIELDS = [
    { name: 'minute', least: 0, most: 59, of: (time) => time.getUTCMinutes() },
    { name: 'hour', least: 0, most: 23, of: (time) => time.getUTCHours() },
    { name: 'day', least: 1, most: 31, of: (time) => time.getUTCDate() },
    { name: 'month', least: 1, most: 12, names: MONTHS, of: (time) => time.getUTCMonth() + 1 },
    { name: 'weekday', least: 0, most: 7, names: DAYS, of: (time) => time.getUTCDay() },
];

/** A function that says whether a cron expression of five fields takes a minute of UTC. */
export function cron(expression) {
    const parts = expression.trim().split(/\s+/);
    if (parts.length !== FIELDS.length) throw new Error(`cron ${expression}: five fields are needed`);
    const [minute, hour, day, month, weekday] = FIELDS.map((field, at) => {
        const values = new Set(parts[at].split(',').flatMap((part) => range(part, field, expression)));
        // Sunday is 7 too.
        if (field.name === 'weekday' && values.has(7)) values.add(0);
        return (time) => values.has(field.of(time));
    });
    // Where both are given, either of the two days will do, as cron has it.
    const either = parts[2] !== '*' && parts[4] !== '*';
    const days = either ? (time) => day(time) || weekday(time) : (time) => day(time) && weekday(time);
    return (time) => minute(time) && hour(time) && month(time) && days(time);
}

function range(part, { name, least, most, names = [] }, expression) {
    const found = /^(?:\*|(\d+)(?:-(\d+))?)(?:\/(\d+))?$/.exec(numbered(part, least, names));
    if (!found) throw new Error(`cron ${expression}: ${name} ${part}: numbers, names, *, -, / and , are known`);
    const [, first, last, step] = found.map((text) => (text === undefined ? undefined : Number(text)));
    const from = first ?? least;
    const to = last ?? (first === undefined || step !== undefined ? most : first);
    if (from < least || to > most || from > to || step === 0) {
        throw new Error(`cron ${expression}: ${name} ${part}: ${least} to ${most} is allowed`);
    }
    const count = Math.floor((to - from) / (step ?? 1)) + 1;
    return Array.from({ length: count }, (_, at) => from + at * (step ?? 1));
}

/** With numbers for names of months or days. At the end of a range Sunday is the last day. */
function numbered(part, least, names) {
    return part.replace(/(-?)([a-z]+)/gi, (text, dash, name) => {
        const at = dash ? names.lastIndexOf(name.toUpperCase()) : names.indexOf(name.toUpperCase());
        return at < 0 ? text : `${dash}${least + at}`;
    });
}
