// Package commands is hactl: one file per family of commands, all with the same
// manners. People get sentences, programs get JSON (--output json) with the
// fields of package apiv1; a refusal says why and which command would help; the
// exit code says what kind of failure it was (see exit.go).
package commands
