// Package config reads, checks and shows /etc/hapair/hapair.yaml, the file
// that is the same on every node.
//
// [Load] and [Parse] are strict: an unknown key, a wrong type or an impossible
// relation is refused with file, line, column, the line itself, a caret and,
// where there is one, a suggestion. All problems of a file are reported
// together ([Errors]). What comes back has every default filled in, so a reader
// of a [Config] never sees a zero where a value was meant; [Config.Render]
// shows it and can be parsed again.
//
// Parsing is pure: whatever needs the machine (is this disk mounted?) is asked
// by [Config.CheckSystem], and what is described but not built yet is refused
// by [Config.CheckImplemented].
package config
