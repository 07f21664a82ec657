//! Signing in, the account, its keys and secrets.

use crate::http::api::{account, auth, logins, password_reset};
use crate::http::body::OkView;
use crate::http::endpoint::Class::{Account, Public, Session};
use crate::http::endpoint::Endpoint;
use crate::http::error::Code;

pub(super) fn sign_in() -> Vec<Endpoint> {
    const TAG: &str = "Signing in";
    vec![
        Endpoint::post("/api/auth/signup", auth::sign_up)
            .auth(Public)
            .summary(TAG, "signUp", "Create an account")
            .description("With `signup = \"first\"` the first account needs the setup token, except in dev mode.")
            .request::<auth::SignUp>()
            .needs(&["email", "password"])
            .response::<auth::Session>(201)
            .errors(&[
                Code::BadAddress,
                Code::WeakPassword,
                Code::SignupClosed,
                Code::SetupToken,
                Code::AccountExists,
                Code::RateLimited,
            ]),
        Endpoint::post("/api/auth/login", auth::log_in)
            .auth(Public)
            .summary(TAG, "logIn", "Sign in")
            .request::<auth::LogIn>()
            .needs(&[])
            .response::<auth::Session>(200)
            .errors(&[Code::BadLogin, Code::RateLimited]),
        Endpoint::post("/api/auth/google", auth::google)
            .auth(Public)
            .summary(TAG, "signInWithGoogle", "Sign in with Google")
            .request::<auth::GoogleSignIn>()
            .needs(&["code"])
            .response::<auth::Session>(200)
            .errors(&[
                Code::GoogleNotConfigured,
                Code::GoogleRejected,
                Code::GoogleUnreachable,
                Code::SignupClosed,
                Code::SetupToken,
                Code::AccountExists,
                Code::RateLimited,
            ]),
        Endpoint::get("/api/auth/sessions", logins::list)
            .auth(Session)
            .summary(TAG, "listSessions", "List the account's sessions")
            .response::<logins::Logins>(200),
        Endpoint::delete("/api/auth/sessions/{id}", logins::end)
            .auth(Session)
            .summary(TAG, "endSession", "End one of the account's sessions")
            .response::<OkView>(200)
            .errors(&[Code::NotFound]),
        Endpoint::post("/api/auth/logout", auth::log_out)
            .auth(Session)
            .summary(TAG, "logOut", "End this session")
            .response::<OkView>(200),
        Endpoint::post("/api/auth/password", auth::change_password)
            .auth(Session)
            .summary(TAG, "changePassword", "Change the password")
            .description("Every earlier session ends; keys stay.")
            .request::<auth::ChangePassword>()
            .needs(&["newPassword"])
            .response::<auth::PasswordChanged>(200)
            .errors(&[Code::WeakPassword, Code::WrongPassword]),
        Endpoint::post("/api/auth/password/forgot", password_reset::forgot)
            .auth(Public)
            .summary(TAG, "forgotPassword", "Mail a link that sets a new password")
            .description("Nothing tells whether the address has an account.")
            .request::<password_reset::ForgottenPassword>()
            .needs(&["email"])
            .response::<OkView>(200)
            .errors(&[Code::BadAddress, Code::RateLimited]),
        Endpoint::post("/api/auth/password/reset", password_reset::reset)
            .auth(Public)
            .summary(TAG, "resetPassword", "Set a new password by that link")
            .description("Every session and every other link of the account ends, and its e-mail is verified.")
            .request::<password_reset::NewPassword>()
            .needs(&["token", "password"])
            .response::<OkView>(200)
            .errors(&[Code::BadLink, Code::WeakPassword, Code::RateLimited]),
        Endpoint::post("/api/auth/verify/send", auth::send_verification)
            .auth(Account)
            .summary(TAG, "sendVerification", "Mail a link to verify the account's e-mail")
            .response::<auth::VerificationStatus>(200),
        Endpoint::get("/api/auth/verify", auth::verify_page)
            .auth(Public)
            .summary(TAG, "showVerification", "The page behind that link")
            .description("It asks for confirmation and changes nothing.")
            .query::<auth::VerifyQuery>()
            .gives_media("text/html"),
        Endpoint::post("/api/auth/verify", auth::verify)
            .auth(Public)
            .summary(TAG, "verifyEmail", "Verify the account's e-mail")
            .description("Posted by the page behind the link, which it answers with a page.")
            .query::<auth::VerifyQuery>()
            .gives_media("text/html"),
    ]
}

pub(super) fn account() -> Vec<Endpoint> {
    const TAG: &str = "Account";
    vec![
        Endpoint::get("/v1/me", account::me)
            .summary(TAG, "me", "Get the caller's account")
            .response::<account::Me>(200),
        Endpoint::get("/api/billing/usage", account::usage)
            .summary(TAG, "getUsage", "Messages sent this month")
            .response::<account::Usage>(200),
        Endpoint::get("/api/keys", account::key)
            .auth(Account)
            .summary(TAG, "getApiKey", "Get the account's API key; creates it if there is none")
            .response::<account::Key>(200),
        Endpoint::post("/api/keys/rotate", account::rotate_key)
            .auth(Account)
            .summary(TAG, "rotateApiKey", "Replace the account's API key")
            .description("The old key stops working at once.")
            .response::<account::Key>(200),
        Endpoint::get("/api/keys/scoped", account::scoped_keys)
            .auth(Account)
            .summary(TAG, "listScopedKeys", "List keys limited to one domain, newest first")
            .gives_list::<account::ScopedKey>(),
        Endpoint::post("/api/keys/scoped", account::new_scoped_key)
            .auth(Account)
            .summary(TAG, "createScopedKey", "Create a key for one domain")
            .request::<account::NewScopedKey>()
            .needs(&["domainId"])
            .response::<account::ScopedKey>(201)
            .errors(&[Code::LimitReached, Code::DomainNotOwned]),
        Endpoint::delete("/api/keys/scoped/{id}", account::delete_scoped_key)
            .auth(Account)
            .resource(account::scoped_key_exists)
            .summary(TAG, "deleteScopedKey", "Revoke a scoped key")
            .response::<OkView>(200),
        Endpoint::get("/api/webhooks/secret", account::webhook_secret)
            .auth(Account)
            .summary(TAG, "getTrackingSecret", "Get the secret of tracking webhooks; creates it if there is none")
            .response::<account::Secret>(200),
        Endpoint::post("/api/webhooks/secret/rotate", account::rotate_webhook_secret)
            .auth(Account)
            .summary(TAG, "rotateTrackingSecret", "Replace the secret of tracking webhooks")
            .description("For 24 hours both secrets sign.")
            .response::<account::RotatedSecret>(200),
    ]
}
