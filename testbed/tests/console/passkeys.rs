//! Passkeys with a device that Chromium plays: made, used alone and as the second step, removed.

use crate::World;
use crate::browser::Page;
use crate::check::Album;
use serde_json::json;

/// A device that keeps keys and knows its owner, who always agrees.
pub fn device(page: &Page) {
    // Browsers ask their device for the page in front only.
    page.in_front();
    page.call("WebAuthn.enable", json!({ "enableUI": false }));
    let options = json!({
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": true,
        "hasUserVerification": true, "isUserVerified": true, "automaticPresenceSimulation": true,
    });
    page.call("WebAuthn.addVirtualAuthenticator", json!({ "options": options }));
}

/// Milo's way. Wrong when it fails: a passkey that the core's tests take is not what a real browser
/// sends, or the script that asks for it does not run under the console's policy.
pub fn all(world: &World, page: &Page, album: &Album) {
    device(page);
    page.visit("/");
    page.sign_in("milo", &world.milo.password);
    page.visit("/account");
    assert!(page.text("#passkeys").contains("You have no passkey"));
    page.go("#add-passkey");
    page.fill("#name", "Milo's \"laptop\"");
    album.keep(page, "passkey-add");
    page.go("#passkey-go");
    assert_eq!(page.path(), "/account", "{}", page.text("main"));
    assert!(page.text("#notice").contains("is added"));
    assert!(page.text("#passkeys").contains("not used yet"));
    album.keep(page, "account");
    page.go("#sign-out");

    page.go("#use-passkey");
    page.go("#passkey-go");
    assert_eq!(page.path(), "/", "{}", page.text("main"));
    assert!(page.text("#person").starts_with("milo@rennes"));
    page.visit("/account");
    assert!(!page.text("#passkeys").contains("not used yet"));
    page.go("#second-on");
    assert_eq!(page.path(), "/sign-in");

    page.fill("#user", "milo");
    page.fill("#password", &world.milo.password);
    page.go("#sign-in");
    assert!(page.has("#passkey-form"), "the password was enough");
    page.go("#passkey-go");
    assert!(page.text("#person").starts_with("milo@rennes"), "{}", page.text("main"));
    page.visit("/account");
    page.go("#make-code");
    assert!(page.text("#code").len() > 20);
    page.visit("/account");
    page.go("#second-off");
    page.sign_in("milo", &world.milo.password);
    page.visit("/account");
    page.go("#passkeys .cards a");
    page.go("#remove");
    page.go("#use-passkey");
    page.go_refused("#passkey-go", 401);
    assert!(page.text("#sign-in-trouble").len() > 10, "a removed passkey signed in");
    page.sign_in("milo", &world.milo.password);
}
