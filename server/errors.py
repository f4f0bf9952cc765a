"""The server's errors, added to the tree of `shared/errors.py`.

    UserError
    ├── BadRequest        request.*      a request as such: body, cursor, key, credentials
    ├── BadModel          model.*        models
    ├── BadVersion        version.*      versions
    ├── BadTrust          repository.*   signed metadata, and the keys that sign them
    ├── BadDataset        dataset.*      datasets
    ├── BadRefinement     refinement.*   refinements
    ├── BadRollout        rollout.*      rollouts
    ├── BadUpdate         update.*       stored update packages
    ├── BadDevice         device.*       enrolment, polls and reports
    ├── BadGroup          group.*        groups of devices
    ├── BadFilter         filter.*       filters over devices, rollouts and events
    ├── BadWebhook        webhook.*      webhooks
    ├── BadAccess         access.*       keys of operators
    ├── BadBackup         backup.*       backups
    ├── BadKey            key.*          files of keys that sign metadata
    ├── BadCeremony       ceremony.*     what is signed by hand, and by whom
    └── BadCommand        command.*      a command line of `weft`
    OperationError
    ├── DatabaseError     database.*     the database
    ├── BlobError         blob.*         the blob store
    └── ServerError       service.*      the server process itself

The HTTP status of each code stands in `server/api/problems.py`.
"""

from __future__ import annotations

from typing import ClassVar

from shared.errors import OperationError, UserError


class BadRequest(UserError):
    """A request cannot be read, or may not be made."""

    area = "request"
    codes: ClassVar[dict[str, str]] = {
        "invalid": "Correct the fields that are named and send the request again.",
        "not_found": "Check the address; the API is described at /docs.",
        "method_not_allowed": "Use a method that this address offers; see /docs.",
        "bad_cursor": "Take `next` of the previous page as it is, or start without a cursor.",
        "too_large": "Send a smaller body, or raise the limit in the server's settings.",
        "headers_too_large": "Send fewer or shorter headers.",
        "query_too_long": "Send fewer or shorter parameters.",
        "rate_limited": "Wait for as long as `Retry-After` says.",
        "wrong_type": "Send the body with the Content-Type that is named.",
        "incomplete": "Send the whole body again.",
        "unauthorized": "Give a valid key: `weft login`, WEFT_KEY, or as a bearer token.",
        "forbidden": "Use a key with the role that is named, or ask an admin for one.",
        "out_of_scope": "Use a key that is held to nothing, or ask somebody who has one.",
        "forbidden_origin": "Use the API on this machine by its loopback address, or require keys.",
        "key_reused": "Use a new Idempotency-Key for another request.",
        "key_invalid": "Give an Idempotency-Key of 1 to 200 printable ASCII characters.",
        "bad_range": "Ask for a range that begins inside the file.",
    }


class BadModel(UserError):
    """A model cannot be found or made."""

    area = "model"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Run `weft models list` to see the models.",
        "exists": "Choose another name, or use the model that is there.",
        "unknown_architecture": "Use an architecture of the zoo, or one of the allowed modules.",
    }


class BadVersion(UserError):
    """A version cannot be found or made."""

    area = "version"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Run `weft versions list` to see the versions of the model.",
        "exists": "Nothing to do: the model already has these weights.",
        "removed": "Upload the weights again, or choose a version whose weights are kept.",
        "not_released": "Release the version with `weft release`, or choose a released one.",
        "withdrawn": "Choose another version: one that was withdrawn does not come back.",
    }


class BadTrust(UserError):
    """Metadata cannot be signed here, or what was signed elsewhere is refused."""

    area = "repository"
    codes: ClassVar[dict[str, str]] = {
        "keys_missing": "Copy the keys folder of the server that has it, or set WEFT_KEYS_DIR.",
        "key_missing": "Put the private key of the role that is named into the keys folder.",
        "release_key_offline": "Sign where the release key is: `weft release` with its folder.",
        "signing_failed": "Check the key's file, or the service that holds it, and try again.",
        "other_root": "Use the keys folder that belongs to this database.",
        "no_root": "Put `1.root.json` of the key ceremony into the keys folder.",
        "malformed": "Sign again with `weft`; this file is damaged or no signed metadata.",
        "bad_signature": "Sign with as many keys of the role as the root asks for.",
        "other_model": "Give the metadata of the model that is named.",
        "outdated": "Begin again from the metadata in use: somebody published meanwhile.",
        "expired": "Sign again, with a later end.",
        "unknown_version": "Sign what this server has: the version with these weights.",
        "bad_delegation": "Sign again what the server drafts: it names its key of packages.",
        "targets_missing": "Bring along the targets of each model, signed by the new keys.",
        "ends_sooner": "Ask for fewer days, or sign the role that is named anew first.",
    }


class BadDataset(UserError):
    """A dataset cannot be opened or does not fit."""

    area = "dataset"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Run `weft datasets list` to see the datasets, or check the path.",
        "exists": "Choose another name, or use the dataset that is there.",
        "not_allowed": "Put the data under one of WEFT_DATASET_ROOTS, or add their folder to it.",
        "unreadable": "Check the data: a folder of images by class, an npz or a Parquet file.",
        "bad_label": "Correct the labels: integers from 0 to the number of classes less one.",
        "bad_image": "Repair or remove the image that is named.",
        "changed": "Register the data as they are now as another dataset.",
        "empty": "Give a dataset that has at least one image.",
    }


class BadRefinement(UserError):
    """A refinement cannot be found, made or changed."""

    area = "refinement"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Run `weft refinements list` to see the refinements.",
        "not_cancellable": "Nothing to do: the refinement has ended.",
        "bad_recipe": "Correct the recipe; `docs/http-api.md` lists its fields.",
        "no_architecture": "Create the model with an architecture: it cannot be trained without.",
        "bad_goal": "Give max_bytes (bytes), min_accuracy (percent), or both.",
        "too_few_bytes": "Raise max_bytes above the size that is named.",
        "accuracy_not_reached": "Lower min_accuracy, raise max_bytes, or train for more epochs; "
        "`weft refinements curve` shows what each size reaches.",
        "no_curve": "Ask for that of a refinement by `auto`, once its first trial has ended.",
    }


class BadUpdate(UserError):
    """A stored update package cannot be found or built."""

    area = "update"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Run `weft packages list` to see the packages.",
        "other_model": "Choose a base and a target of the same model.",
        "removed": "Build the package again, or choose one that is kept.",
        "below_accuracy": "Choose another method or a finer one, or lower what you ask for.",
        "not_measurable": "Create the model with an architecture: without it nothing is measured.",
        "no_way": "Build packages between these versions, or export the bundle with `--full`.",
        "no_golden": "Ask for fewer golden samples, of the shape that a network of labels takes.",
    }


class BadRollout(UserError):
    """A rollout cannot be found, made or changed."""

    area = "rollout"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Run `weft rollouts list` to see the rollouts.",
        "not_active": "Nothing to do: the rollout has ended.",
        "wrong_state": "Look at the rollout's state; the message says which one it must have.",
        "nothing_to_retry": "Run `weft rollouts devices` to see what has become of each device.",
        "no_previous_version": "Name the version to go back to.",
        "wrong_version": "Name another version to go back to.",
        "needs_rollback": "Say that it is meant: `weft rollouts start --rollback`.",
    }


class BadDevice(UserError):
    """A device may not enrol, or says something that cannot be."""

    area = "device"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Run `weft devices list` to see the devices.",
        "ambiguous": "Give the id of the device that you mean.",
        "enrolment_closed": "Make an enrolment token with `weft tokens create`.",
        "bad_enrolment_token": "Use an enrolment token of this server.",
        "enrolment_token_expired": "Make another one with `weft tokens create`.",
        "enrolment_token_used": "Make another one with `weft tokens create`.",
        "enrolment_token_revoked": "Make another one with `weft tokens create`.",
        "token_not_found": "Run `weft tokens list` to see the tokens.",
        "preauthorised": "Nothing to do: the device need not wait when it comes.",
        "preauthorisation_not_found": "Run `weft devices preauthorised` to see who is expected.",
        "unsigned": "Use an agent that signs what it sends with the device's key.",
        "bad_signature": "Sign the body as it is sent, with the key that the device enrolled with.",
        "key_unknown": "Run `weft devices reenrol` and have the device enrol with that token.",
        "key_taken": "Remove `device.key` on the device, so that it makes a key of its own.",
        "key_retired": "Remove `device.key` on the device, so that it makes another key.",
        "model_not_allowed": "Run `weft devices allow`, or make a token for that model too.",
        "not_accepted": "Run `weft devices accept`, if it is a device of yours.",
        "cloned": "Run `weft devices accept` if there is only one; else `weft devices reenrol`.",
        "decommissioned": "Have it enrol as a new device: remove `device.key` and `identity.json`.",
        "unauthorized": "Enrol the device again.",
        "counter_reused": "Send a report with a counter above the last one.",
        "unknown_assignment": "Poll again and report on an assignment that is offered.",
        "package_not_found": "Poll again; the package is not offered to this device any more.",
        "model_not_found": "Poll again; this device is not known to run the model.",
    }


class BadGroup(UserError):
    """A group cannot be found, made, changed or deleted."""

    area = "group"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Run `weft groups list` to see the groups.",
        "exists": "Choose another name, or change the group that is there.",
        "circular": "Name no group in a filter that names this one, directly or through others.",
        "in_use": "First change or end what names the group, or give it another filter.",
    }


class BadWebhook(UserError):
    """A webhook cannot be found or made."""

    area = "webhook"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Run `weft webhooks list` to see the webhooks.",
        "delivery_not_found": "Run `weft webhooks deliveries` to see what was sent.",
        "bad_url": "Give an https:// address; http:// only for this machine's loopback.",
        "host_not_allowed": "Add the host to WEFT_WEBHOOK_HOSTS on the server.",
        "too_many": "Delete a webhook that nobody needs.",
    }


class BadFilter(UserError):
    """A filter cannot be read, or asks for what there is not."""

    area = "filter"
    codes: ClassVar[dict[str, str]] = {
        "syntax": "Correct the filter at the column that is named; `docs/filters.md` shows how.",
        "unknown_field": "Use one of the fields that are listed.",
        "bad_value": "Correct the value or the operator at the column that is named.",
        "too_long": "Shorten the filter, or save parts of it as groups.",
    }


class BadCommand(UserError):
    """A command line of `weft` cannot be understood."""

    area = "command"
    codes: ClassVar[dict[str, str]] = {
        "invalid": "Correct the command line; `--help` after the command says what it takes.",
    }


class BadAccess(UserError):
    """A key of operators cannot be found or made."""

    area = "access"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Run `weft access list` to see the keys.",
        "exists": "Choose another name: history knows this one, even where it is revoked.",
        "reserved": "Choose another name.",
        "not_held": "Leave the models and groups out, or choose another role.",
        "past": "Give a moment to come, or none.",
    }


class BadBackup(UserError):
    """A backup cannot be made, read or restored."""

    area = "backup"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Give the folder of a finished backup: it holds a file `backup.json`.",
        "unknown_format": "Use the Weft that made the backup, or a later one.",
        "wrong_schema": "Restore with the Weft version that is named, then update Weft.",
        "damaged": "Use another backup: this one does not hold what it says.",
        "not_empty": "Restore into a new database; nothing is ever overwritten.",
        "busy": "Wait for the other backup or restore in this folder.",
    }


class BadKey(UserError):
    """A key that should sign metadata cannot be made, kept or used."""

    area = "key"
    codes: ClassVar[dict[str, str]] = {
        "not_found": "Check the path; `weft keys status` says where keys lie.",
        "exists": "Nothing is ever overwritten: move the old file away, or choose another folder.",
        "malformed": "Give a file as `weft keys` writes it: PEM, or JSON with `uri` and `public`.",
        "wrong_passphrase": "Try again with the passphrase of the file that is named.",
        "weak_passphrase": "Choose one of at least 12 characters; six random words are good.",
        "no_passphrase": "Run it on a terminal, or set WEFT_KEYS_PASSPHRASE_FILE.",
        "open_to_others": "Run `chmod 600` on the file that is named.",
        "other_key": "Give the file its own name back: it says another key than it holds.",
        "no_signer": "Check the URI, its service, and what securesystemslib needs for its scheme.",
        "unknown_role": "Use one of the roles that are listed.",
    }


class BadCeremony(UserError):
    """What should be signed by hand must not be, or not by this key, or not yet."""

    area = "ceremony"
    codes: ClassVar[dict[str, str]] = {
        "exists": "Nothing is ever overwritten: choose an empty folder, or rotate the keys.",
        "no_root": "Copy `1.root.json` and those that followed it into the folder that is named.",
        "no_draft": "Give a file `....draft.json`; `weft keys status` lists those of a folder.",
        "not_confirmed": "Nothing was signed. Confirm it, or give `--yes`.",
        "incomplete": "Have those who are named sign the draft, then run `weft keys publish`.",
        "other_draft": "Finish it (`weft keys sign`, `weft keys publish`), or remove the file.",
        "not_successor": "Do not sign it: begin again from what is in use, by the same command.",
        "older": "Find out why: a restored server signs anew by itself, a stolen one may replay.",
        "forged": "Do not sign anything: the server shows what the release key did not sign.",
        "other_model": "Give the document of the model that is named.",
        "expired": "Begin again: remove the draft, and repeat the command.",
        "wrong_key": "Sign with one of the keys that are waited for.",
        "wrong_digest": "Do not release it: find out who changed the weights.",
        "same_key": "Make another key.",
        "unknown_key": "`weft keys status` lists the keys of each role.",
        "too_few_keys": "Add keys, or lower the threshold: as many must be left as have to sign.",
        "other_packages_key": "If it was you, copy its `packages-....pub` into the folder.",
    }


class DatabaseError(OperationError):
    """The database cannot be used."""

    area = "database"
    codes: ClassVar[dict[str, str]] = {
        "no_space": "Free some space and try again; nothing was changed.",
        "busy": "Try again; if it stays, look for another process that uses the database.",
        "damaged": "Stop the server and restore a backup.",
        "not_migrated": "Run `weft migrate`, or set WEFT_AUTO_MIGRATE=true.",
        "in_use": "Stop the other server process: SQLite serves one at a time.",
        "unreachable": "Check WEFT_DATABASE_URL, and that PostgreSQL runs and lets this user in.",
        "forbidden": "Give the database user the right to create and change tables, on a primary.",
    }


class BlobError(OperationError):
    """The blob store does not hold what the database names."""

    area = "blob"
    codes: ClassVar[dict[str, str]] = {
        "missing": "Restore the blob store from a backup of the same time as the database.",
        "damaged": "Restore the file from a backup; the copy in the store is refused.",
        "unreachable": "Try again; check WEFT_BLOBS, its endpoint and the network.",
        "refused": "Check the credentials (AWS_ACCESS_KEY_ID), the bucket and the rights on it.",
    }


class ServerError(OperationError):
    """Something inside the server failed."""

    area = "service"
    codes: ClassVar[dict[str, str]] = {
        "internal": "Look for the request_id in the server's log, and report it.",
        "overloaded": "Wait for as long as `Retry-After` says; if it stays, add a server process.",
        "not_ready": "Mend what is named; a server that has just started may need a moment.",
        "interrupted": "Start it again; its work was cut off by a stop of the server.",
        "broken": "Do what the checks say, and run `weft doctor` again.",
        "worker_failed": "Look at the log in the job's folder, and report it.",
    }
