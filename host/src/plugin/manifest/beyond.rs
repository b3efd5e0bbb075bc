//! What a manifest grants beyond another one.

use std::collections::BTreeMap;

use super::{Access, Grants, SqlGrant};

impl Grants {
    /// The grants that go beyond those of `old`, a line for each, as a manifest has it.
    pub fn beyond(&self, old: &Grants) -> Vec<String> {
        let databases = self.sql.iter();
        let sql =
            databases.filter_map(|(name, grant)| Some((name.clone(), grant.beyond(old.sql.get(name))?)));
        let hosts = old.http.clone().unwrap_or_default();
        let beyond = Grants {
            cache: more(&self.cache, &old.cache),
            kv: more(&self.kv, &old.kv),
            sql: sql.collect(),
            blob: more(&self.blob, &old.blob),
            vector: more(&self.vector, &old.vector),
            http: self.http.as_ref().map(|new| more(new, &hosts)),
        };
        beyond.lines()
    }
}

impl SqlGrant {
    /// None: nothing of it is.
    fn beyond(&self, old: Option<&SqlGrant>) -> Option<SqlGrant> {
        match (self, old) {
            (SqlGrant::Whole(new), Some(SqlGrant::Whole(had))) => {
                (had < new).then_some(SqlGrant::Whole(*new))
            }
            (SqlGrant::Tables(new), Some(SqlGrant::Whole(had))) => {
                let tables = new.iter().filter(|(_, access)| had < *access);
                let tables: BTreeMap<_, _> = tables.map(|(table, access)| (table.clone(), *access)).collect();
                (!tables.is_empty()).then_some(SqlGrant::Tables(tables))
            }
            (SqlGrant::Tables(new), Some(SqlGrant::Tables(had))) => {
                let tables: BTreeMap<String, Access> = more(new, had);
                (!tables.is_empty()).then_some(SqlGrant::Tables(tables))
            }
            (SqlGrant::Whole(_), Some(SqlGrant::Tables(_))) | (_, None) => Some(self.clone()),
        }
    }
}

/// What is new, or goes further than before.
fn more<A: Copy + Ord>(new: &BTreeMap<String, A>, old: &BTreeMap<String, A>) -> BTreeMap<String, A> {
    let further = new.iter().filter(|(name, access)| old.get(*name).is_none_or(|had| had < *access));
    further.map(|(name, access)| (name.clone(), *access)).collect()
}

#[cfg(test)]
mod tests {
    use crate::plugin::Manifest;

    fn beyond(old: &str, new: &str) -> Vec<String> {
        let grants =
            |text: &str| Manifest::parse(&format!("name = \"guest\"\n[grants]\n{text}")).unwrap().grants;
        grants(new).beyond(&grants(old))
    }

    #[test]
    fn what_is_new_or_goes_further_is_beyond() {
        let read = "kv.a = \"read\"";
        let write = "kv.a = \"read-write\"";
        assert!(beyond(write, read).is_empty() && beyond(write, "").is_empty());
        assert_eq!(beyond(read, write), [write]);
        assert_eq!(beyond("kv.b = \"read-write\"", read), [read]);
        // A name in another kind of store is another store.
        assert_eq!(beyond(write, "blob.a = \"read\""), ["blob.a = \"read\""]);
        let (public, private) = ("http.\"h\" = \"public\"", "http.\"h\" = \"private\"");
        assert!(beyond(private, public).is_empty());
        assert_eq!(beyond(public, private), [private]);
    }

    #[test]
    fn a_whole_database_is_beyond_its_tables_and_they_are_not_beyond_it() {
        let tables = "sql.d.t = \"read\"\nsql.d.u = \"read-write\"";
        assert_eq!(beyond("sql.d = \"read\"", tables), ["sql.d.u = \"read-write\""]);
        assert!(beyond("sql.d = \"read-write\"", tables).is_empty());
        assert_eq!(beyond(tables, "sql.d = \"read\""), ["sql.d = \"read\""]);
        assert_eq!(beyond(tables, "sql.d.t = \"read-write\""), ["sql.d.t = \"read-write\""]);
        // The name of a database may have a point in it, and is no table of another one.
        assert_eq!(beyond("sql.d = \"read\"", "sql.\"d.t\" = \"read\""), ["sql.d.t = \"read\""]);
    }
}
