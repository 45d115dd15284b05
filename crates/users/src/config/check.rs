//! What a configuration must be beyond its types. Every text names key, value and what is allowed.

use super::{Config, Registration, is_turn_uri};

const YEAR: u64 = 366 * 86_400;

fn in_range(key: &str, value: u64, allowed: std::ops::RangeInclusive<u64>) -> Result<(), String> {
    if allowed.contains(&value) {
        Ok(())
    } else {
        Err(format!("users.{key} = {value}: allowed are {} to {}", allowed.start(), allowed.end()))
    }
}

impl Config {
    /// Checks what types alone cannot; the text names key, value and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        self.check_numbers()?;
        self.check_registration()?;
        self.check_mail()?;
        self.check_deeplink()?;
        self.check_calls()
    }

    fn check_deeplink(&self) -> Result<(), String> {
        let Some(link) = &self.deeplink else { return Ok(()) };
        let urls = [
            ("backend_url", Some(&link.backend_url)),
            ("backend_ws_url", link.backend_ws_url.as_ref()),
            ("black_list_url", link.black_list_url.as_ref()),
            ("teams_url", link.teams_url.as_ref()),
            ("accounts_url", link.accounts_url.as_ref()),
            ("website_url", link.website_url.as_ref()),
        ];
        for (key, url) in urls.into_iter().filter_map(|(key, url)| Some((key, url?))) {
            let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            if rest.is_none_or(|rest| rest.is_empty() || rest.ends_with('/') || rest.contains([' ', '"', '<'])) {
                return Err(format!(
                    "users.deeplink.{key} = \"{url}\": allowed are https:// and http:// URLs without a slash at the end"
                ));
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), String> {
        let (tokens, limits, quotas) = (&self.tokens, &self.limits, &self.federation.quotas);
        in_range("tokens.access_seconds", tokens.access_seconds, 10..=86_400)?;
        in_range("tokens.persistent_seconds", tokens.persistent_seconds, 60..=YEAR)?;
        in_range("tokens.session_seconds", tokens.session_seconds, 60..=YEAR)?;
        in_range("tokens.renew_seconds", tokens.renew_seconds, 1..=YEAR)?;
        in_range("passwords.memory_kib", self.passwords.memory_kib.into(), 8..=4_194_304)?;
        in_range("passwords.passes", self.passwords.passes.into(), 1..=100)?;
        in_range("passwords.concurrent", self.passwords.concurrent as u64, 1..=1024)?;
        in_range("passwords.waiting", self.passwords.waiting as u64, 1..=100_000)?;
        in_range("limits.login_failures", limits.login_failures.into(), 1..=1000)?;
        in_range("limits.login_window_seconds", limits.login_window_seconds, 1..=YEAR)?;
        in_range("limits.login_gap_seconds", limits.login_gap_seconds, 0..=86_400)?;
        in_range("limits.code_failures", limits.code_failures.into(), 1..=10)?;
        in_range("limits.code_seconds", limits.code_seconds, 60..=604_800)?;
        in_range("limits.confirmation_seconds", limits.confirmation_seconds, 60..=604_800)?;
        in_range("limits.code_mails_per_hour", limits.code_mails_per_hour.into(), 1..=1000)?;
        in_range("limits.unactivated_seconds", limits.unactivated_seconds, 3600..=YEAR)?;
        in_range("limits.permanent_clients", limits.permanent_clients.into(), 1..=50)?;
        in_range("limits.connections", limits.connections.into(), 1..=4000)?;
        in_range("limits.pending_connections", limits.pending_connections.into(), 1..=100_000)?;
        in_range("limits.properties", limits.properties.into(), 1..=1000)?;
        in_range("retention.audit_days", self.retention.audit_days.into(), 1..=3650)?;
        in_range("mail.expiry_seconds", self.mail.expiry_seconds, 60..=YEAR)?;
        for (key, value) in [
            ("federation.quotas.prekeys", quotas.prekeys),
            ("federation.quotas.prekeys_per_user", quotas.prekeys_per_user),
            ("federation.quotas.searches", quotas.searches),
            ("federation.quotas.searches_per_term", quotas.searches_per_term),
            ("federation.quotas.handles", quotas.handles),
            ("federation.quotas.handles_per_handle", quotas.handles_per_handle),
            ("federation.quotas.connections", quotas.connections),
            ("federation.quotas.connections_per_user", quotas.connections_per_user),
        ] {
            in_range(key, value.into(), 1..=100_000_000)?;
        }
        Ok(())
    }

    fn check_registration(&self) -> Result<(), String> {
        if let Registration::Domains(domains) = &self.registration
            && let Some(wrong) = domains.iter().find(|domain| domain.is_empty() || domain.contains(['@', ' ', '*']))
        {
            return Err(format!(
                "users.registration: \"{wrong}\" is no e-mail domain; allowed are names like example.com"
            ));
        }
        if self.registration != Registration::Closed && self.mail.folder.is_none() && self.mail.smtp.is_none() {
            return Err(
                "users.mail: registration needs mail; allowed are users.mail.folder or users.mail.smtp, or users.registration = \"closed\"".to_owned(),
            );
        }
        Ok(())
    }

    fn check_mail(&self) -> Result<(), String> {
        let mail = &self.mail;
        if mail.folder.is_some() && mail.smtp.is_some() {
            return Err("users.mail: both folder and smtp are set; allowed is one of them".to_owned());
        }
        if let Some(from) = &mail.from
            && from.parse::<lettre::message::Mailbox>().is_err()
        {
            return Err(format!(
                "users.mail.from = \"{from}\": allowed are addresses like \"Aldis <aldis@example.com>\""
            ));
        }
        for (key, url) in [
            ("activation_url", &mail.activation_url),
            ("password_reset_url", &mail.password_reset_url),
            ("deletion_url", &mail.deletion_url),
        ] {
            if let Some(url) = url
                && !(url.contains("{key}") && url.contains("{code}"))
            {
                return Err(format!("users.mail.{key} = \"{url}\": allowed are URLs that hold {{key}} and {{code}}"));
            }
        }
        if let Some(smtp) = &mail.smtp
            && smtp.username.is_some() != smtp.password.is_some()
        {
            return Err("users.mail.smtp: username and password are needed together".to_owned());
        }
        Ok(())
    }

    fn check_calls(&self) -> Result<(), String> {
        let calls = &self.calls;
        in_range("calls.credential_seconds", calls.credential_seconds, 60..=YEAR)?;
        in_range("calls.ttl_seconds", calls.ttl_seconds, 1..=YEAR)?;
        in_range("calls.discovery_seconds", calls.discovery_seconds, 1..=3600)?;
        in_range("calls.sft_list_length", calls.sft_list_length as u64, 1..=100)?;
        if !calls.sft_service.starts_with('_') || calls.sft_service.contains('.') {
            return Err("users.calls.sft_service: allowed is one label that begins with an underscore".to_owned());
        }
        if let Some(wrong) = calls.turn_uris.iter().find(|uri| !is_turn_uri(uri)) {
            return Err(format!("users.calls.turn_uris: \"{wrong}\": allowed are turn: and turns: URIs"));
        }
        if let Some(wrong) = calls.sft_urls.iter().find(|url| !url.starts_with("https://")) {
            return Err(format!("users.calls.sft_urls: \"{wrong}\": allowed are https:// URLs"));
        }
        let any = !calls.turn_uris.is_empty() || calls.turn_uris_file.is_some() || calls.turn_discovery.is_some();
        if any && calls.secret.as_ref().is_none_or(|secret| secret.expose().is_empty()) {
            return Err("users.calls.secret: needed with TURN servers".to_owned());
        }
        Ok(())
    }
}
