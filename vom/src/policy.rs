//! Who may do what in a VO: a casbin model over the VO's roles, asked once at start into a table.
//!
//! Casbin costs microseconds to milliseconds a question, more for each rule; all VOs have the same
//! rules in this version, so that one table of roles by actions answers everything in nanoseconds.
//! The table is the golden file `tests/matrix.txt`.

use crate::state::{Member, Vo};
use casbin::{CoreApi, DefaultModel, Enforcer, MemoryAdapter, MgmtApi};
use std::collections::BTreeSet;
use xos_api::vom::Actor;
use xos_base::membership::{ROLE_ADMIN, ROLE_OWNER};
use xos_base::{Error, Millis, PersonId, RoleName, SiteId, VoId};

macro_rules! named {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$vdoc:meta])* $variant:ident = $text:literal, $plain:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The name in rules.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// The words that a person reads.
            pub fn plain(self) -> &'static str {
                match self { $($name::$variant => $plain,)* }
            }
        }
    };
}

named! {
    /// What somebody is to a VO.
    Role {
        /// Any person who signed in.
        Person = "person", "somebody who signed in";
        /// A member who can act.
        Member = "member", "a member of the VO";
        /// An administrator of the VO.
        Admin = "admin", "an administrator of the VO";
        /// An owner of the VO.
        Owner = "owner", "an owner of the VO";
        /// An administrator of the VO's home site (elsewhere: of the site asked).
        SiteAdmin = "site-admin", "an administrator of the site";
        /// The core of a trusted site.
        Core = "core", "the core of a trusted site";
        /// The core of a site that gave or offers the VO a share.
        ShareCore = "share-core", "the core of a site that gives the VO a share";
        /// The core of the site asked.
        OwnCore = "own-core", "the site's own core";
        /// A member who manages the group that it is about, and signed in: no role that a
        /// credential carries says so.
        Manager = "manager", "a manager of the group";
    }
}

named! {
    /// What can be done in a VO.
    Action {
        /// See members, groups and shares.
        See = "see", "look at members, groups and shares";
        /// See the shares.
        SeeShares = "see-shares", "look at shares";
        /// See who has applied.
        SeeApplications = "see-applications", "look at applications";
        /// Ask on behalf of this site's services.
        Serve = "serve", "ask for the site's services";
        /// Read the log.
        ReadLog = "read-log", "read the log";
        /// Apply, and take one's application back.
        Apply = "apply", "apply";
        /// End one's own membership.
        Leave = "leave", "end their own membership";
        /// Admit or reject an applicant.
        Admit = "admit", "admit or reject applicants";
        /// Suspend, resume, remove a plain member, set the end of a membership.
        ManageMember = "manage-member", "suspend, resume or remove members";
        /// The same for administrators and owners; give and take those two roles.
        ManagePrivileged = "manage-privileged", "change or make administrators and owners";
        /// Make and delete groups, put members into them.
        ManageGroup = "manage-group", "make, delete or fill groups";
        /// Give and take other roles.
        ManageRole = "manage-role", "give or take roles";
        /// Offer one's own site's share, and end it.
        OfferShare = "offer-share", "offer or end a site's share";
        /// Accept, refuse, end a site's share.
        ManageShare = "manage-share", "accept, refuse or end shares";
        /// Suspend and resume the VO.
        SuspendVo = "suspend-vo", "suspend or resume the VO";
        /// Resume the VO after its home site suspended it.
        OverruleSite = "overrule-site", "resume the VO after the site suspended it";
        /// Give names to accounts of members at one's own site, and take them back.
        NameAccounts = "name-accounts", "give names to accounts";
        /// Change what the VO is called and what it is for.
        DescribeVo = "describe-vo", "change the title or the description";
        /// Set the VO's lease.
        SetLease = "set-lease", "set the lease";
        /// Set for how long the VO's work is held once the lease is over.
        SetGrace = "set-grace", "set for how long work is held after the lease";
        /// Set for how long after a sign-in the VO's credentials are renewed.
        SetRenewal = "set-renewal", "set for how long credentials are renewed";
        /// Note a volume.
        MakeVolume = "make-volume", "make volumes";
        /// Change the VO's rules. No rule decides about it.
        ManageRules = "manage-rules", "change rules";
        /// Agree to the terms of use.
        Agree = "agree", "agree to the terms of use";
        /// Set terms of use, questions to applicants, reminders.
        SetEnrolment = "set-enrolment", "set terms of use, questions or reminders";
        /// Make and withdraw invitations to what is not privileged.
        Invite = "invite", "make or withdraw invitations";
        /// See what members agreed to and answered, what ends, what was.
        SeeRecords = "see-records", "look at the records of members";
        /// Put plain members into a group that one manages, take them out, make groups within it.
        ManageOwnGroup = "manage-own-group", "fill a group that they manage";
        /// Offer one's own ownership to a member.
        HandOver = "hand-over", "hand the VO over";
        /// Take an ownership over that was offered.
        TakeOver = "take-over", "take the VO over";
        /// Dissolve the VO, and take that back.
        DissolveVo = "dissolve-vo", "dissolve the VO or take that back";
        /// Erase the VO once it is time.
        EraseVo = "erase-vo", "erase the VO";
        /// Take out all that the VO consists of.
        Export = "export", "export the VO";
        /// See the VO's lines of a site's audit.
        SeeAudit = "see-audit", "look at the audit";
        /// Have the audit note which files are opened.
        SetFileAudit = "set-file-audit", "set whether opened files are noted";
    }
}

impl Role {
    /// Whether a machine has it, and no person.
    fn is_core(self) -> bool {
        matches!(self, Role::Core | Role::ShareCore | Role::OwnCore)
    }
}

/// The cheap comparison stands before `g`, which walks the role graph.
const MODEL: &str = "
[request_definition]
r = sub, act
[policy_definition]
p = sub, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.act == p.act && g(r.sub, p.sub)
";

/// Who includes whom: an owner may do what an administrator may, and so on.
const INCLUDES: &[(Role, Role)] = &[
    (Role::Owner, Role::Admin),
    (Role::Admin, Role::Member),
    (Role::Member, Role::Person),
    (Role::SiteAdmin, Role::Person),
    (Role::ShareCore, Role::Core),
    (Role::OwnCore, Role::Core),
    (Role::Manager, Role::Member),
];

const RULES: &[(Role, Action)] = &[
    (Role::Person, Action::Apply),
    (Role::Member, Action::See),
    (Role::Member, Action::SeeShares),
    (Role::Member, Action::Leave),
    (Role::Admin, Action::SeeApplications),
    (Role::Admin, Action::Admit),
    (Role::Admin, Action::ManageMember),
    (Role::Admin, Action::ManageGroup),
    (Role::Admin, Action::ManageRole),
    (Role::Admin, Action::ManageShare),
    (Role::Admin, Action::DescribeVo),
    (Role::Admin, Action::SetLease),
    (Role::Admin, Action::SetGrace),
    (Role::Admin, Action::SetRenewal),
    (Role::Admin, Action::MakeVolume),
    (Role::Admin, Action::SetFileAudit),
    (Role::Owner, Action::ManagePrivileged),
    (Role::Owner, Action::SuspendVo),
    (Role::SiteAdmin, Action::See),
    (Role::SiteAdmin, Action::SeeShares),
    (Role::SiteAdmin, Action::SuspendVo),
    (Role::SiteAdmin, Action::OverruleSite),
    (Role::SiteAdmin, Action::NameAccounts),
    (Role::Core, Action::OfferShare),
    (Role::ShareCore, Action::SeeShares),
    (Role::ShareCore, Action::ReadLog),
    (Role::OwnCore, Action::See),
    (Role::OwnCore, Action::SeeShares),
    (Role::OwnCore, Action::Serve),
    (Role::OwnCore, Action::ReadLog),
    (Role::OwnCore, Action::MakeVolume),
    (Role::Admin, Action::ManageRules),
    (Role::SiteAdmin, Action::ManageRules),
    (Role::Person, Action::Agree),
    (Role::Admin, Action::SetEnrolment),
    (Role::Admin, Action::Invite),
    (Role::Admin, Action::SeeRecords),
    (Role::Manager, Action::ManageOwnGroup),
    (Role::Admin, Action::ManageOwnGroup),
    (Role::Member, Action::TakeOver),
    (Role::Owner, Action::HandOver),
    (Role::Owner, Action::DissolveVo),
    (Role::Owner, Action::Export),
    (Role::SiteAdmin, Action::DissolveVo),
    (Role::SiteAdmin, Action::Export),
    (Role::OwnCore, Action::EraseVo),
    (Role::Admin, Action::SeeAudit),
    (Role::SiteAdmin, Action::SeeAudit),
];

/// The decisions, one bit for each role and action.
#[derive(Clone, Debug)]
pub struct Policy {
    allowed: BTreeSet<(Role, Action)>,
}

impl Policy {
    /// Evaluates the rules.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the model does not hold together.
    pub async fn built_in() -> Result<Policy, Error> {
        let failed = |e: casbin::Error| Error::internal(format!("VO policy: {e}"));
        let model = DefaultModel::from_str(MODEL).await.map_err(failed)?;
        let mut enforcer = Enforcer::new(model, MemoryAdapter::default()).await.map_err(failed)?;
        let rules = RULES.iter().map(|(r, a)| vec![r.as_str().to_owned(), a.as_str().to_owned()]);
        enforcer.add_policies(rules.collect()).await.map_err(failed)?;
        let graph =
            INCLUDES.iter().map(|(a, b)| vec![a.as_str().to_owned(), b.as_str().to_owned()]);
        enforcer.add_grouping_policies(graph.collect()).await.map_err(failed)?;
        let mut allowed = BTreeSet::new();
        for role in Role::ALL {
            for action in Action::ALL {
                if enforcer.enforce((role.as_str(), action.as_str())).map_err(failed)? {
                    allowed.insert((*role, *action));
                }
            }
        }
        Ok(Policy { allowed })
    }

    /// Whether a role may do something.
    pub fn allows(&self, role: Role, action: Action) -> bool {
        self.allowed.contains(&(role, action))
    }

    /// Lets `subject` do `action` in a VO, or says why not.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`].
    pub fn authorise(
        &self,
        vo: &Vo,
        subject: &Subject,
        action: Action,
        now: Millis,
    ) -> Result<Grant, Error> {
        let roles = subject.roles(vo, now);
        if roles.iter().any(|r| self.allows(*r, action)) {
            return Ok(Grant { vo: vo.id.clone(), subject: subject.clone(), action, roles });
        }
        // Who is shut out only for want of consent is told that, and not to become what they are.
        if let Some(person) = subject.person()
            && let Some(m) = vo.members.get(person).filter(|m| m.acts(now))
            && !vo.consents(person, m, now)
        {
            return Err(vo.lapsed(person));
        }
        // A person cannot become a core, nor a core a person.
        let alike = |r: &&Role| r.is_core() == subject.person().is_none();
        let all = Role::ALL.iter().filter(|r| self.allows(**r, action));
        let needed: Vec<&str> = all.filter(alike).map(|r| r.plain()).collect();
        let hint = match (needed.as_slice(), subject.person()) {
            ([], Some(_)) => "only the cores of sites may".to_owned(),
            ([], None) => "only persons may".to_owned(),
            (roles, _) => format!("that takes {}", roles.join(" or ")),
        };
        Err(Error::denied(format!("{subject} may not {} in {}", action.plain(), vo.id)).hint(hint))
    }
}

/// Who asks, after proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A person.
    Person {
        /// Who.
        person: PersonId,
        /// Whether they administer this site.
        site_admin: bool,
        /// How much of what they are in the VO their proof carries.
        carried: Carried,
    },
    /// The core of another site.
    Core(SiteId),
    /// The core of this site.
    OwnCore(SiteId),
}

/// How much of a person's standing in a VO a proof carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// All: the person signed in.
    All,
    /// Membership and at most these roles: a credential in the VO.
    Roles(BTreeSet<RoleName>),
    /// Nothing but who they are: a credential in another VO, which must not open this one.
    Nothing,
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Person { person, .. } => person.fmt(f),
            Subject::Core(site) | Subject::OwnCore(site) => write!(f, "the core of {site}"),
        }
    }
}

impl Subject {
    /// What the subject is to the VO.
    pub fn roles(&self, vo: &Vo, now: Millis) -> BTreeSet<Role> {
        let mut roles = BTreeSet::new();
        match self {
            Subject::Person { person, site_admin, carried } => {
                roles.insert(Role::Person);
                if *site_admin {
                    roles.insert(Role::SiteAdmin);
                }
                let acts = |m: &&Member| m.acts(now) && vo.consents(person, m, now);
                let member = vo.members.get(person).filter(acts);
                let Some(m) = member.filter(|_| *carried != Carried::Nothing) else {
                    return roles;
                };
                roles.insert(Role::Member);
                if *carried == Carried::All && vo.managers.contains_key(person) {
                    roles.insert(Role::Manager);
                }
                let holds = |role: &str| {
                    let named = |r: &RoleName| r.as_str() == role;
                    let carries = match carried {
                        Carried::All => true,
                        Carried::Roles(some) => some.iter().any(named),
                        Carried::Nothing => false,
                    };
                    carries && m.roles.iter().any(named)
                };
                if holds(ROLE_ADMIN) {
                    roles.insert(Role::Admin);
                }
                if holds(ROLE_OWNER) {
                    roles.insert(Role::Owner);
                }
            }
            Subject::Core(site) => {
                roles.insert(Role::Core);
                if vo.shares.contains_key(site) {
                    roles.insert(Role::ShareCore);
                }
            }
            Subject::OwnCore(_) => {
                roles.insert(Role::OwnCore);
            }
        }
        roles
    }

    /// The person, when it is one.
    pub fn person(&self) -> Option<&PersonId> {
        match self {
            Subject::Person { person, .. } => Some(person),
            _ => None,
        }
    }

    /// Whether the proof shows who somebody is, and nothing of what they are in the VO.
    pub fn carries_nothing(&self) -> bool {
        matches!(self, Subject::Person { carried: Carried::Nothing, .. })
    }

    /// Whether the proof shows all that somebody is: they signed in.
    pub fn carries_all(&self) -> bool {
        matches!(self, Subject::Person { carried: Carried::All, .. })
    }

    /// Who stands in the log.
    pub fn actor(&self) -> Actor {
        match self {
            Subject::Person { person, .. } => Actor::Person(person.clone()),
            Subject::Core(site) | Subject::OwnCore(site) => Actor::Site(site.clone()),
        }
    }
}

/// The proof that [`Policy::authorise`] was asked; nothing else makes one.
#[derive(Clone, Debug)]
pub struct Grant {
    vo: VoId,
    subject: Subject,
    action: Action,
    roles: BTreeSet<Role>,
}

impl Grant {
    /// In which VO.
    pub fn vo(&self) -> &VoId {
        &self.vo
    }

    /// Who.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// What.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Whether the subject has a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

#[cfg(test)]
mod tests;
