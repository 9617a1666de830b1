package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/anyquic/anyquic/internal/selfcert"
)

// A reloader is something that was read from files, and can be read again while it is
// in use. If Reload fails, it goes on with what it had.
type reloader interface {
	Reload() error
}

// A preparer is a reloader that can say beforehand whether its files are any good.
type preparer interface {
	// PrepareReload reads the files and returns what puts them in force.
	PrepareReload() (commit func(), err error)
}

// namesFiles reports whether there is something to read again without a file of
// settings.
func (c *serveConfig) namesFiles() bool {
	a := &c.Access
	return cmp.Or(c.Certificate.Cert, a.Users, a.JWKS, a.ClientCA, a.HTTPCA, a.ACL) != ""
}

// liveKeys are the settings that a reload puts in force, or the groups of them.
var liveKeys = []string{
	"certificate.", "limits.", "quotas.", "log.level", "server-reference",
	"timeouts.session-expiry", "timeouts.keep-alive", "timeouts.drain", "timeouts.drain-spread",
}

// reload reads the configuration again, by load, and what it names. It puts all of it
// in force, or nothing.
func (o *operations) reload(load func() (serveConfig, error)) {
	before := o.config()
	next, err := o.prepare(load)
	o.mu.Lock()
	if err != nil {
		o.reloads[0]++
	} else {
		o.reloads[1]++
		o.reloaded = time.Now()
	}
	o.mu.Unlock()
	if err != nil {
		o.log.Error("the configuration was not reloaded: everything stays as it was", "error", err)
		return
	}
	if late := needRestart(before, next); len(late) > 0 {
		o.log.Warn("these settings have changed and need a restart", "keys", strings.Join(late, " "))
	}
	o.log.Info("configuration reloaded")
}

// prepare reads everything before it changes anything.
func (o *operations) prepare(load func() (serveConfig, error)) (*serveConfig, error) {
	next, err := load()
	if err != nil {
		return nil, err
	}
	next.Engine = o.engine.Name()
	before := o.config()
	cert := o.cert.Load()
	if next.Certificate.Cert != "" {
		c, _, err := next.Certificate.certificate(time.Now())
		if err != nil {
			return nil, err
		}
		cert = &c
	} else if before.Certificate.Cert != "" {
		return nil, errors.New("--cert is gone: a self-signed certificate in its place needs a restart")
	}
	level, err := next.Log.level()
	if err != nil {
		return nil, err
	}
	var commits []func()
	var others []reloader
	for _, r := range o.reloaders {
		p, ok := r.(preparer)
		if !ok {
			others = append(others, r)
			continue
		}
		commit, err := p.PrepareReload()
		if err != nil {
			return nil, err
		}
		commits = append(commits, commit)
	}
	for i, r := range others { // each of them as a whole or not at all
		if err := r.Reload(); err != nil {
			if i > 0 {
				err = fmt.Errorf("%w (%d other files were reloaded before)", err, i)
			}
			return nil, err
		}
	}
	if err := o.broker.Reconfigure(next.brokerConfig()); err != nil {
		return nil, err
	}
	for _, commit := range commits {
		commit()
	}
	o.use(cert)
	o.level.Set(level)
	o.cfg.Store(&next)
	return &next, nil
}

// use puts a certificate in force for new handshakes.
func (o *operations) use(cert *tls.Certificate) {
	if old := o.cert.Swap(cert); !slices.EqualFunc(old.Certificate, cert.Certificate, slices.Equal) {
		o.log.Info("new certificate", "fingerprint", selfcert.Fingerprint(cert.Certificate[0]), slog.Time("until", cert.Leaf.NotAfter))
	}
}

// needRestart returns the keys whose values differ, without those of liveKeys.
func needRestart(a, b *serveConfig) []string {
	keys := differing("", reflect.ValueOf(*a), reflect.ValueOf(*b))
	return slices.DeleteFunc(keys, func(key string) bool {
		return slices.ContainsFunc(liveKeys, func(live string) bool {
			return key == live || strings.HasSuffix(live, ".") && strings.HasPrefix(key, live)
		})
	})
}

// differing returns the keys, as in the YAML file, of fields that differ.
func differing(prefix string, a, b reflect.Value) (keys []string) {
	for i := range a.NumField() {
		if !a.Type().Field(i).IsExported() {
			continue // no key of the file
		}
		name := prefix + a.Type().Field(i).Tag.Get("yaml")
		x, y := a.Field(i), b.Field(i)
		if x.Kind() == reflect.Struct {
			keys = append(keys, differing(name+".", x, y)...)
		} else if !reflect.DeepEqual(x.Interface(), y.Interface()) {
			keys = append(keys, name)
		}
	}
	return keys
}
