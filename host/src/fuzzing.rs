//! Doors for the fuzz targets, which stand in `tests/fuzz/` as a crate of their own. There is nothing here in any other
//! build but that of the tests, which replay the targets' corpus.

pub use crate::api::fuzzing::*;
pub use crate::gateway::fuzzing::*;
pub use crate::plugin::ingest::fuzzing::*;

#[cfg(test)]
#[path = "../../tests/fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "there it is a library")]
mod properties;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::properties;

    /// Checks every input of a target's corpus; the name of one that fails is the last that is shown.
    fn replay(target: &str, check: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target);
        let mut inputs: Vec<_> =
            std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty());
        for input in inputs {
            println!("{}", input.display());
            check(&std::fs::read(input).unwrap());
        }
    }

    #[test]
    fn requests_of_the_corpus_are_read_as_their_upstream_would() {
        replay("requests", properties::requests::check);
    }

    #[test]
    fn answers_of_the_corpus_are_read_alike_in_pieces_and_whole() {
        replay("usage", properties::usage::check);
    }

    #[test]
    fn configurations_of_the_corpus_show_no_secret() {
        replay("config", properties::config::check);
    }

    #[test]
    fn manifests_of_the_corpus_stay_within_the_limits() {
        replay("manifest", properties::manifest::check);
    }

    #[test]
    fn components_of_the_corpus_are_refused_or_start_within_bounds() {
        replay("component", properties::component::check);
    }

    #[test]
    fn parameters_of_the_corpus_come_back_from_the_database() {
        replay("parameters", properties::parameters::check);
    }

    #[test]
    fn filters_of_the_corpus_take_what_each_of_their_conditions_takes() {
        replay("filters", properties::filters::check);
    }

    #[test]
    fn events_of_the_corpus_come_back_as_they_were_written() {
        replay("events", properties::events::check);
    }
}
