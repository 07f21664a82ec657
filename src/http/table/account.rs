//! Signing in, the account, its keys and secrets.

use crate::http::api::{account, auth, logins};
use crate::http::body::Done;
use crate::http::endpoint::Class::{Account, Public, Session};
use crate::http::endpoint::Endpoint;
use crate::http::error::Code;

pub(super) fn sign_in() -> Vec<Endpoint> {
    const TAG: &str = "Signing in";
    vec![
        Endpoint::post("/api/auth/signup", auth::sign_up)
            .who(Public)
            .about(TAG, "signUp", "Make an account")
            .more("With `signup = \"first\"` the first account needs the setup token, except in dev mode.")
            .takes::<auth::SignUp>()
            .needs(&["email", "password"])
            .gives::<auth::Session>(201)
            .fails(&[
                Code::BadAddress,
                Code::WeakPassword,
                Code::SignupClosed,
                Code::SetupToken,
                Code::AccountExists,
                Code::RateLimited,
            ]),
        Endpoint::post("/api/auth/login", auth::log_in)
            .who(Public)
            .about(TAG, "logIn", "Sign in")
            .takes::<auth::LogIn>()
            .needs(&[])
            .gives::<auth::Session>(200)
            .fails(&[Code::BadLogin, Code::RateLimited]),
        Endpoint::post("/api/auth/google", auth::google)
            .who(Public)
            .about(TAG, "signInWithGoogle", "Sign in with Google")
            .takes::<auth::GoogleSignIn>()
            .needs(&["code"])
            .gives::<auth::Session>(200)
            .fails(&[
                Code::GoogleNotConfigured,
                Code::GoogleRejected,
                Code::GoogleUnreachable,
                Code::SignupClosed,
                Code::SetupToken,
                Code::AccountExists,
                Code::RateLimited,
            ]),
        Endpoint::get("/api/auth/sessions", logins::list)
            .who(Session)
            .about(TAG, "listSessions", "Where the account is signed in")
            .gives::<logins::Logins>(200),
        Endpoint::delete("/api/auth/sessions/{id}", logins::end)
            .who(Session)
            .about(TAG, "endSession", "End one of the account's sessions")
            .gives::<Done>(200)
            .fails(&[Code::NotFound]),
        Endpoint::post("/api/auth/logout", auth::log_out)
            .who(Session)
            .about(TAG, "logOut", "End this session")
            .gives::<Done>(200),
        Endpoint::post("/api/auth/password", auth::change_password)
            .who(Session)
            .about(TAG, "changePassword", "Change the password")
            .more("Every earlier session ends; keys stay.")
            .takes::<auth::ChangePassword>()
            .needs(&["newPassword"])
            .gives::<auth::PasswordChanged>(200)
            .fails(&[Code::WeakPassword, Code::WrongPassword]),
        Endpoint::post("/api/auth/verify/send", auth::send_verification)
            .who(Account)
            .about(TAG, "sendVerification", "Mail a link that proves the account's e-mail")
            .gives::<auth::VerificationStatus>(200),
        Endpoint::get("/api/auth/verify", auth::verify_page)
            .who(Public)
            .about(TAG, "showVerification", "The page behind that link")
            .more("It asks for a button to be pressed and changes nothing.")
            .query::<auth::VerifyQuery>()
            .gives_media("text/html"),
        Endpoint::post("/api/auth/verify", auth::verify)
            .who(Public)
            .about(TAG, "verifyEmail", "Prove the account's e-mail")
            .more("Posted by the page behind the link, which it answers with a page.")
            .query::<auth::VerifyQuery>()
            .gives_media("text/html"),
    ]
}

pub(super) fn account() -> Vec<Endpoint> {
    const TAG: &str = "Account";
    vec![
        Endpoint::get("/v1/me", account::me).about(TAG, "me", "Who am I?").gives::<account::Me>(200),
        Endpoint::get("/api/billing/usage", account::usage)
            .about(TAG, "getUsage", "Messages sent this month")
            .gives::<account::Usage>(200),
        Endpoint::get("/api/keys", account::key)
            .who(Account)
            .about(TAG, "getApiKey", "The account's API key, made if there is none")
            .gives::<account::Key>(200),
        Endpoint::post("/api/keys/rotate", account::rotate_key)
            .who(Account)
            .about(TAG, "rotateApiKey", "Replace the account's API key")
            .more("The old key is dead at once.")
            .gives::<account::Key>(200),
        Endpoint::get("/api/keys/scoped", account::scoped_keys)
            .who(Account)
            .about(TAG, "listScopedKeys", "Keys that are limited to one domain, newest first")
            .gives_list::<account::ScopedKey>(),
        Endpoint::post("/api/keys/scoped", account::new_scoped_key)
            .who(Account)
            .about(TAG, "createScopedKey", "Make a key for one domain")
            .takes::<account::NewScopedKey>()
            .needs(&["domainId"])
            .gives::<account::ScopedKey>(201)
            .fails(&[Code::LimitReached, Code::DomainNotOwned]),
        Endpoint::delete("/api/keys/scoped/{id}", account::delete_scoped_key)
            .who(Account)
            .about(TAG, "deleteScopedKey", "End a scoped key")
            .gives::<Done>(200),
        Endpoint::get("/api/webhooks/secret", account::webhook_secret)
            .who(Account)
            .about(TAG, "getTrackingSecret", "The secret of tracking webhooks, made if there is none")
            .gives::<account::Secret>(200),
        Endpoint::post("/api/webhooks/secret/rotate", account::rotate_webhook_secret)
            .who(Account)
            .about(TAG, "rotateTrackingSecret", "Replace the secret of tracking webhooks")
            .more("For 24 hours both secrets sign.")
            .gives::<account::RotatedSecret>(200),
    ]
}
