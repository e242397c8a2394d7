package main

import (
	"fmt"
	"os"
	"strings"

	"hapair/test/lab"
)

// kinds are the services that have a usual form in the lab, by their words.
func kinds() (map[string]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return map[string]string{
		"mount":   "mount: {path: /srv/pg, type: ext4}",
		"exec":    fmt.Sprintf("{name: records, exec: {start: [%[1]s, recordd, start], stop: [%[1]s, recordd, stop], status: [%[1]s, recordd, status]}}", self),
		"address": "address: {ip: " + lab.ServiceAddress + "/24, dev: eth0}",
	}, nil
}

// services turns what --service was given into items of the configuration:
// words (mount,exec,address) become the lab's usual services, in that order;
// anything else is an item already.
func services(given []string) ([]string, error) {
	usual, err := kinds()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, g := range given {
		words := strings.Split(g, ",")
		if _, ok := usual[strings.TrimSpace(words[0])]; !ok {
			if !strings.Contains(g, ":") {
				return nil, fmt.Errorf("--service %q is neither mount, exec or address nor an item of the configuration, such as 'mount: {path: /srv/pg, type: ext4}'", g)
			}
			out = append(out, g)
			continue
		}
		for _, w := range words {
			item, ok := usual[strings.TrimSpace(w)]
			if !ok {
				return nil, fmt.Errorf("--service %q: %q is none of mount, exec, address", g, w)
			}
			out = append(out, item)
		}
	}
	return out, nil
}
