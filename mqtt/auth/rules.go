package auth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/topic"
)

// Rules are access control from a file. Each line is a rule:
//
//	allow|deny [user=NAME] [client=ID] [from=ADDRESS|CIDR] read|write|both FILTER
//
//	# A device writes below its own name and nobody else's; operators see all.
//	allow user=* write devices/%u/#
//	allow user=operator from=10.0.0.0/8 read devices/#
//	deny  both secret/#
//	allow read public/#
//
// The first rule that matches decides, and what no rule matches is denied.
// user=* is every user with a name, so that a rule without user= holds for
// anonymous clients too. Values with spaces are quoted: user="Jane Doe". The
// filter is the rest of the line; %c stands in it for the client identifier and
// %u for the user name.
//
// A name with a +, # or / in it, an empty one and one that begins with $ stand
// for nothing: an allow rule does not match then, and a deny rule denies.
//
// write is for publishing, and a will; read for subscribing. A subscription is to
// every topic that its filter matches: an allow rule matches if it allows
// all of them, a deny rule if it denies any. Wildcards at the beginning of a rule
// do not match topics that begin with $.
type Rules struct {
	file     string
	list     atomic.Pointer[[]rule]
	revision atomic.Uint64
}

type rule struct {
	allow       bool
	read, write bool
	user        *string // nil: any; "*": any with a name
	client      *string // nil: any
	from        netip.Prefix
	filter      string
	substitute  bool // filter has %c or %u
}

// OpenRules reads a file of rules.
func OpenRules(file string) (*Rules, error) {
	r := &Rules{file: file}
	return r, r.Reload()
}

// Reload reads the file again. On an error the rules stay as they were.
// Subscriptions that the new rules do not allow live on until
// [broker.Broker.Reauthorize] or the client's next connection.
func (r *Rules) Reload() error { return reload(r.PrepareReload()) }

// PrepareReload reads the file and returns what puts it in force.
func (r *Rules) PrepareReload() (commit func(), err error) {
	text, err := readFile(r.file)
	if err != nil {
		return nil, err
	}
	list, err := parseRules(r.file, text)
	if err != nil {
		return nil, err
	}
	return func() {
		r.list.Store(&list)
		r.revision.Add(1)
	}, nil
}

// Revision implements [broker.Authorizer].
func (r *Rules) Revision() uint64 { return r.revision.Load() }

func parseRules(file string, text []byte) ([]rule, error) {
	var list []rule
	err := eachLine(file, text, func(_ int, line string) error {
		one, err := parseRule(line)
		if err == nil {
			list = append(list, one)
		}
		return err
	})
	return list, err
}

func parseRule(line string) (rule, error) {
	var r rule
	word, rest := cutWord(line)
	switch word {
	case "allow":
		r.allow = true
	case "deny":
	default:
		return r, fmt.Errorf("%q: a rule begins with allow or deny", word)
	}
	for {
		if word, rest = cutWord(rest); word == "" {
			return r, errors.New("no access: use read, write or both, and then a topic filter")
		}
		key, _, isCondition := strings.Cut(word, "=")
		if !isCondition {
			break
		}
		value, err := unquote(strings.TrimPrefix(word, key+"="))
		if err != nil {
			return r, fmt.Errorf("%s: %w", key, err)
		}
		if err := r.condition(key, value); err != nil {
			return r, err
		}
	}
	switch word {
	case "read":
		r.read = true
	case "write":
		r.write = true
	case "both":
		r.read, r.write = true, true
	default:
		return r, fmt.Errorf("%q: use user=, client=, from=, or read, write or both", word)
	}
	r.filter = strings.TrimSpace(rest)
	if r.filter == "" {
		return r, errors.New("no topic filter after " + word)
	}
	if err := topic.ValidFilter(r.filter); err != nil {
		return r, fmt.Errorf("topic filter %q: %w", r.filter, err)
	}
	if strings.HasPrefix(r.filter, "$share/") {
		return r, fmt.Errorf("topic filter %q: shared subscriptions are checked by the filter behind $share/GROUP/", r.filter)
	}
	r.substitute = strings.Contains(r.filter, "%u") || strings.Contains(r.filter, "%c")
	return r, nil
}

func (r *rule) condition(key, value string) error {
	twice := fmt.Errorf("%s= is there twice", key)
	switch key {
	case "user":
		if r.user != nil {
			return twice
		}
		r.user = &value
	case "client":
		if r.client != nil {
			return twice
		}
		r.client = &value
	case "from":
		if r.from.IsValid() {
			return twice
		}
		if a, err := netip.ParseAddr(value); err == nil {
			r.from = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
			return nil
		}
		p, err := netip.ParsePrefix(value)
		if err != nil {
			return fmt.Errorf("from=%s: neither an address nor a CIDR such as 10.0.0.0/8", value)
		}
		if p != p.Masked() {
			return fmt.Errorf("from=%s: has bits behind its length: %v is meant?", value, p.Masked())
		}
		r.from = p
	default:
		return fmt.Errorf("%s=: use user=, client= or from=", key)
	}
	return nil
}

// cutWord cuts a word off, which may have a part in quotes.
func cutWord(s string) (word, rest string) {
	s = strings.TrimLeft(s, " \t")
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			return s[:i], s[i:]
		}
	}
	return s, ""
}

func unquote(s string) (string, error) {
	if !strings.Contains(s, `"`) {
		if s == "" {
			return "", errors.New("the value is empty")
		}
		return s, nil
	}
	v, err := strconv.Unquote(s)
	if err != nil {
		return "", fmt.Errorf("%s: not a quoted value", s)
	}
	return v, nil
}

// Authorize implements [broker.Authorizer].
func (r *Rules) Authorize(_ context.Context, c *broker.ClientInfo, a broker.Action, name string) (bool, error) {
	return decide(*r.list.Load(), c, a, name), nil
}

func decide(list []rule, c *broker.ClientInfo, a broker.Action, name string) bool {
	remote := address(c.Remote)
	for i := range list {
		r := &list[i]
		if !r.concerns(c, a, remote) {
			continue
		}
		filter := r.filter
		if r.substitute {
			var ok bool
			if filter, ok = substitute(filter, c); !ok {
				if r.allow {
					continue
				}
				return false
			}
		}
		match := false
		switch {
		case a == broker.ActionPublish:
			match = topic.Matches(filter, name)
		case r.allow:
			match = covers(filter, name)
		default:
			match = overlaps(filter, name)
		}
		if match {
			return r.allow
		}
	}
	return false
}

// concerns reports whether a rule is for this client and action.
func (r *rule) concerns(c *broker.ClientInfo, a broker.Action, remote netip.Addr) bool {
	switch {
	case a == broker.ActionPublish && !r.write, a == broker.ActionSubscribe && !r.read:
		return false
	case r.user != nil && *r.user == "*" && c.Username == "":
		return false
	case r.user != nil && *r.user != "*" && *r.user != c.Username:
		return false
	case r.client != nil && *r.client != c.ClientID:
		return false
	case r.from.IsValid() && !r.from.Contains(remote):
		return false
	}
	return true
}

// substitute puts the client's names into a filter, unless they would be more
// than a part of one level.
func substitute(filter string, c *broker.ClientInfo) (string, bool) {
	var b strings.Builder
	for {
		i := strings.IndexByte(filter, '%')
		if i < 0 || i+1 == len(filter) {
			b.WriteString(filter)
			return b.String(), true
		}
		b.WriteString(filter[:i])
		name := ""
		switch filter[i+1] {
		case 'u':
			name = c.Username
		case 'c':
			name = c.ClientID
		default:
			b.WriteByte('%')
			filter = filter[i+1:]
			continue
		}
		if name == "" || name[0] == '$' || strings.ContainsAny(name, "+#/\x00") {
			return "", false
		}
		b.WriteString(name)
		filter = filter[i+2:]
	}
}

func address(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	case nil:
		return netip.Addr{}
	}
	if p, err := netip.ParseAddrPort(a.String()); err == nil {
		return p.Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
