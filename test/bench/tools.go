package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// packages are the Debian packages of the programs.
var packages = map[string]string{"fio": "fio", "qemu-storage-daemon": "qemu-system-common"}

// needTools reports everything that is missing at once, and how to get it.
func needTools(agent, ctl string, programs ...string) error {
	var errs []error
	var apt []string
	for _, p := range []string{agent, ctl} {
		if _, err := os.Stat(p); err != nil {
			errs = append(errs, fmt.Errorf("no program %s: make build", p))
		}
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			errs = append(errs, fmt.Errorf("no program %s", p))
			apt = append(apt, packages[p])
		}
	}
	if len(apt) > 0 {
		errs = append(errs, fmt.Errorf("sudo apt-get install -y %s", strings.Join(apt, " ")))
		return errors.Join(errs...)
	}
	if len(programs) > 0 {
		errs = append(errs, fioSpeaksNBD())
	}
	return errors.Join(errs...)
}

func fioSpeaksNBD() error {
	out, err := exec.Command("fio", "--enghelp").CombinedOutput()
	if err != nil {
		return fmt.Errorf("fio --enghelp: %w: %s", err, out)
	}
	for _, word := range strings.Fields(string(out)) {
		if word == "nbd" {
			return nil
		}
	}
	return errors.New("this fio was built without its nbd engine; Debian's has it: sudo apt-get install -y fio")
}

// versionOf is the first line a program prints about itself.
func versionOf(program string) string {
	out, err := exec.Command(program, "--version").Output()
	if err != nil {
		return program + " of unknown version"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}
