//! What an allow tells its settlement: that it is a probe, or that there were strikes to forget.

const VERSION: u8 = 1;
const PROBES_ACCOUNT: u8 = 1;
const PROBES_MODEL: u8 = 2;
const HAS_STRIKES: u8 = 4;

/// Version 1: version u8, flags u8, the model in UTF-8.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ticket {
    /// The request tries the account as a whole again.
    pub(crate) probes_account: bool,
    /// The model that the request tries again.
    pub(crate) probes_model: Option<String>,
    /// The account has strikes, which a good answer forgets.
    pub(crate) has_strikes: bool,
}

impl Ticket {
    /// The ticket's bytes; none: there is nothing to say.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.probes_account, PROBES_ACCOUNT)
            | flag(self.probes_model.is_some(), PROBES_MODEL)
            | flag(self.has_strikes, HAS_STRIKES);
        let model = self.probes_model.as_deref().unwrap_or_default();
        (flags != 0).then(|| [&[VERSION, flags], model.as_bytes()].concat())
    }

    /// A ticket from its bytes; an allow without one has nothing to say.
    pub(crate) fn decode(ticket: Option<&[u8]>) -> Result<Ticket, String> {
        let (flags, model) = match ticket {
            None => return Ok(Ticket::default()),
            Some([VERSION, flags, model @ ..]) => (*flags, model),
            Some(_) => return Err("blacklist ticket is of an unknown version or corrupt".to_owned()),
        };
        let model = std::str::from_utf8(model).map_err(|_| "blacklist ticket is corrupt".to_owned())?;
        Ok(Ticket {
            probes_account: flags & PROBES_ACCOUNT != 0,
            probes_model: (flags & PROBES_MODEL != 0).then(|| model.to_owned()),
            has_strikes: flags & HAS_STRIKES != 0,
        })
    }
}
