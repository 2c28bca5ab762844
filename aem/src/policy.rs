//! Who may do what with jobs, as the rules of the VO and of this site say.

use crate::core::Core;
use xos_api::aem::Refusal;
use xos_api::policy::{Action, Denial, Place, Side};
use xos_base::Membership;

impl Core {
    /// Whether rules let a member do something here.
    ///
    /// # Errors
    /// Whose rule refused.
    pub(crate) fn judge(&self, member: &Membership, action: Action) -> Result<(), Refusal> {
        let place = Place { site: self.site.clone(), node: None };
        self.rules.judge(member, action, &place).map_err(refusal)
    }
}

fn refusal(denial: Denial) -> Refusal {
    let rule = match denial.side {
        Side::Site => "site-policy",
        Side::Vo => "vo-policy",
    };
    Refusal { rule: rule.to_owned(), text: denial.text, later: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// If it failed, people would not learn which side refused them what.
    #[tokio::test]
    async fn a_refusal_says_whose_rule_it_was() {
        let (core, world, _dir) = testing::core(|_| {}).await;
        core.judge(&testing::alice(), Action::Run).unwrap();
        for (side, rule) in [(Side::Site, "site-policy"), (Side::Vo, "vo-policy")] {
            let text = format!("rule x of {rule} says no");
            let denial = Denial { side, rule: None, text: text.clone() };
            *crate::core::lock(&world.denial) = Some((Action::Run, denial));
            let refused = core.judge(&testing::alice(), Action::Run).unwrap_err();
            assert_eq!(refused, Refusal { rule: rule.into(), text, later: false });
            core.judge(&testing::alice(), Action::Submit).unwrap();
        }
    }
}
