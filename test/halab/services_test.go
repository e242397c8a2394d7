package main

import (
	"strings"
	"testing"
)

func TestServices(t *testing.T) {
	got, err := services([]string{"mount,address", "systemd: x.service"})
	if err != nil || len(got) != 3 || !strings.HasPrefix(got[0], "mount:") || !strings.HasPrefix(got[1], "address:") || got[2] != "systemd: x.service" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := services([]string{"mount,nfs"}); err == nil {
		t.Fatal("an unknown word beside a known one is accepted")
	}
	if _, err := services([]string{"foo"}); err == nil {
		t.Fatal("a word that means nothing is taken for an item of the configuration")
	}
}
