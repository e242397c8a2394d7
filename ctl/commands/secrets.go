package commands

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"hapair/agent/config"
	"hapair/agent/peering"
)

// caKeyFile lies beside the CA certificate on both data nodes, so that either
// can invite a new machine after the other is gone.
const caKeyFile = "ca.key"

// secretFile is one file to write; all are readable by root only.
type secretFile struct {
	path string
	data []byte
	mode fs.FileMode
}

// clusterSecrets is what the pair shares, and what each node has of its own.
type clusterSecrets struct {
	ca     peering.Pair // mode tls
	psk    []byte       // mode psk, as text
	gossip []byte       // as text
}

func newSecrets(cfg *config.Config) (clusterSecrets, error) {
	var s clusterSecrets
	key, err := peering.NewKey()
	if err != nil {
		return s, err
	}
	s.gossip = peering.FormatKey(key)
	if cfg.Security.Mode == config.SecurityPSK {
		if key, err = peering.NewKey(); err == nil {
			s.psk = peering.FormatKey(key)
		}
		return s, err
	}
	s.ca, err = peering.CreateCA(cfg.Cluster)
	return s, err
}

// loadSecrets reads back what init wrote, to invite another node.
func loadSecrets(cfg *config.Config, root string) (clusterSecrets, error) {
	var s clusterSecrets
	var errs [4]error
	read := func(path string, err *error) (data []byte) {
		data, *err = os.ReadFile(place(root, path))
		return data
	}
	sec := cfg.Security
	s.gossip = read(sec.GossipKeyFile, &errs[0])
	if sec.Mode == config.SecurityPSK {
		s.psk = read(sec.PSKFile, &errs[1])
	} else {
		s.ca.Cert = read(sec.CAFile, &errs[1])
		s.ca.Key = read(caKeyPath(cfg), &errs[2])
	}
	if err := errors.Join(errs[:]...); err != nil {
		return s, fmt.Errorf("read the cluster's secrets: %w", err)
	}
	return s, nil
}

func caKeyPath(cfg *config.Config) string {
	return filepath.Join(filepath.Dir(cfg.Security.CAFile), caKeyFile)
}

// bundleFor makes what a node fetches with its join code.
func (s clusterSecrets) bundleFor(cfg *config.Config, text []byte, node string) (peering.Bundle, error) {
	b := peering.Bundle{Config: text, Key: s.psk, Secrets: map[string][]byte{"gossip": s.gossip}}
	if cfg.Security.Mode == config.SecurityPSK {
		return b, nil
	}
	var err error
	b.CA = s.ca.Cert
	if b.Node, err = peering.IssueNode(s.ca, cfg.Cluster, node); err != nil {
		return b, err
	}
	if cfg.Node(node) != nil {
		b.Secrets[caKeyFile] = s.ca.Key
	}
	return b, nil
}

// files lists what a node keeps of its bundle, the configuration last: whoever
// sees that, sees a complete node.
func files(cfg *config.Config, b peering.Bundle, configPath string) []secretFile {
	sec := cfg.Security
	out := []secretFile{{sec.GossipKeyFile, b.Secrets["gossip"], 0o600}}
	if sec.Mode == config.SecurityPSK {
		out = append(out, secretFile{sec.PSKFile, b.Key, 0o600})
	} else {
		out = append(out, secretFile{sec.CAFile, b.CA, 0o600}, secretFile{sec.CertFile, b.Node.Cert, 0o600}, secretFile{sec.KeyFile, b.Node.Key, 0o600})
		if key := b.Secrets[caKeyFile]; len(key) > 0 {
			out = append(out, secretFile{caKeyPath(cfg), key, 0o600})
		}
	}
	return append(out, secretFile{configPath, b.Config, 0o644})
}

// writeFiles writes all, or refuses before the first when one is there already
// and force was not given.
func writeFiles(root string, list []secretFile, force bool) error {
	for _, f := range list {
		if len(f.data) == 0 {
			return fmt.Errorf("nothing to write into %s: the bundle lacks it", f.path)
		}
		_, err := os.Lstat(place(root, f.path))
		if err == nil && !force {
			return usage("--force overwrites it, and cuts this node off from its old cluster", "%s is there already", place(root, f.path))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look for %s: %w", f.path, err)
		}
	}
	for _, f := range list {
		if err := writeFile(place(root, f.path), f.data, f.mode); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
	}
	return nil
}

// writeFile replaces a file at once and durably: nobody sees half of it, and it
// is never readable by more than mode says.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	dirMode := fs.FileMode(0o755)
	if mode&0o077 == 0 {
		dirMode = 0o700
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone after the rename; the leftover of a failure otherwise
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
