package fenceagent

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"hapair/kernel/secret"
)

// ours are options that the device itself gives, or that have no sense here.
var ours = []string{"action", "option", "help", "version", "quiet"}

// never says which options no device may have, and why.
var never = map[string]string{
	"missing_as_off":  "a wrong plug would count as switched off",
	"missing-as-off":  "a wrong plug would count as switched off",
	"network_fencing": "a machine that is cut off its network would count as switched off, and goes on writing to its own disks",
	"network-fencing": "a machine that is cut off its network would count as switched off, and goes on writing to its own disks",
	"verbose":         "it makes the agent print its secrets",
	"verbose_level":   "it makes the agent print its secrets",
	"debug":           "it makes the agent write its secrets into a file",
	"debug_file":      "it makes the agent write its secrets into a file",
	"delay":           "give the device's own delay instead, which is waited before the agent is started",
}

// secrets are options whose values belong into files. With _file at their end
// they name one.
var secrets = []string{"password", "passwd", "snmp_priv_passwd", "hexadecimal_kg", "apikey", "secret_key", "token", "community"}

// Secret reports whether the value of an option is one that belongs into a file.
func Secret(option string) bool { return slices.Contains(secrets, option) }

const (
	optionsMax     = 64
	valueBytesMax  = 1 << 10
	secretBytesMax = 4 << 10
	fileSuffix     = "_file"
)

var optionName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)

// judgeOptions says what is wrong with options, whatever the agent.
func judgeOptions(given map[string]string) error {
	if len(given) > optionsMax {
		return fmt.Errorf("%d options: at most %d", len(given), optionsMax)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if err := judgeOption(name, given[name]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func judgeOption(name, value string) error {
	switch {
	case !optionName.MatchString(name):
		return fmt.Errorf("%q is not the name of an option", name)
	case slices.Contains(ours, name):
		return fmt.Errorf("option %s is not for the configuration: hapair gives the agent its actions", name)
	case never[name] != "":
		return fmt.Errorf("option %s is refused: %s", name, never[name])
	case Secret(name):
		return fmt.Errorf("option %s is a secret: put it into a file only root can read and give %s%s", name, name, fileSuffix)
	case len(value) > valueBytesMax || strings.ContainsAny(value, "\n\r\x00"):
		return fmt.Errorf("option %s: want one line of at most %d bytes", name, valueBytesMax)
	}
	return nil
}

// secretOf returns the option that name says the file of: password of
// password_file.
func secretOf(name string) (option string, isFile bool) {
	option, found := strings.CutSuffix(name, fileSuffix)
	return option, found && Secret(option)
}

// resolve splits the options into what is handed over as it is and the files of
// secrets. What the agent itself knows as NAME_file is its own.
func resolve(m *metadata, given map[string]string) (plain, files map[string]string) {
	plain, files = map[string]string{}, map[string]string{}
	for name, value := range given {
		if option, isFile := secretOf(name); isFile && m.find(name) == nil {
			files[option] = value
		} else {
			plain[name] = value
		}
	}
	return plain, files
}

// readSecrets reads the files; hide lists what they hold.
func readSecrets(files map[string]string) (values map[string]string, hide []string, err error) {
	values = map[string]string{}
	for option, file := range files {
		b, err := secret.Read(file, secretBytesMax)
		if err != nil {
			return nil, nil, fmt.Errorf("option %s%s: %w", option, fileSuffix, err)
		}
		b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
		if len(b) == 0 || bytes.ContainsAny(b, "\n\r\x00") {
			return nil, nil, fmt.Errorf("option %s%s: %s holds %d bytes, one line with the secret would be right", option, fileSuffix, file, len(b))
		}
		values[option] = string(b)
		hide = append(hide, string(b))
	}
	return values, hide, nil
}

// input is what the agent finds on its standard input.
func input(action string, options ...map[string]string) []byte {
	var lines []string
	for _, set := range options {
		for name, value := range set {
			lines = append(lines, name+"="+quoted(value)+"\n")
		}
	}
	slices.Sort(lines)
	return []byte("action=" + action + "\n" + strings.Join(lines, ""))
}

// quoted protects what an agent would take away: white space at the ends, and
// one pair of quotes around all of it.
func quoted(value string) string {
	if value != strings.TrimSpace(value) || len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		return `"` + value + `"`
	}
	return value
}
