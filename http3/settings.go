package http3

import (
	"maps"
	"slices"
)

// Identifiers of settings.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-7.2.4.1
// https://www.rfc-editor.org/rfc/rfc9204#section-5
// https://www.rfc-editor.org/rfc/rfc9220#section-3
// https://www.rfc-editor.org/rfc/rfc9297#section-2.1.1
const (
	settingMaxTableCapacity = 0x1
	settingMaxFieldSection  = 0x6
	settingBlockedStreams   = 0x7
	settingEnableConnect    = 0x8
	settingDatagram         = 0x33

	// settingOldDatagram is that of the drafts before RFC 9297, which extensions
	// may announce.
	settingOldDatagram = 0xffd277
)

const (
	unlimitedFieldSection = maxVarint
	maxSettings           = 128 // identifiers in a frame
)

// Settings are what a side of a connection announces about itself.
type Settings struct {
	// MaxFieldSection is the size, in bytes, of the largest field section that
	// is accepted, each field counted with 32 bytes above its text. Zero means
	// that there is no limit.
	MaxFieldSection uint64

	// ExtendedConnect allows requests with a :protocol (RFC 9220).
	ExtendedConnect bool

	// Datagrams allows HTTP datagrams (RFC 9297).
	Datagrams bool

	// Other are the settings that this package gives no meaning to, by
	// identifier.
	Other map[uint64]uint64
}

func (s *Settings) maxFieldSection() uint64 {
	if s.MaxFieldSection == 0 {
		return unlimitedFieldSection
	}
	return s.MaxFieldSection
}

// knownSetting reports whether the identifier has a field of its own in
// Settings, or belongs to the codec, or is forbidden.
func knownSetting(id uint64) bool {
	switch id {
	case settingMaxTableCapacity, settingMaxFieldSection, settingBlockedStreams, settingEnableConnect, settingDatagram:
		return true
	}
	return reservedSetting(id)
}

// reservedSetting reports whether id is a setting of HTTP/2 that HTTP/3 does
// not have.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-7.2.4.1
func reservedSetting(id uint64) bool { return id >= 0x2 && id <= 0x5 }

// append appends the payload of a SETTINGS frame.
func (s *Settings) append(dst []byte) []byte {
	put := func(id, v uint64) {
		dst = appendVarint(dst, id)
		dst = appendVarint(dst, v)
	}
	if s.MaxFieldSection != 0 {
		put(settingMaxFieldSection, s.MaxFieldSection)
	}
	if s.ExtendedConnect {
		put(settingEnableConnect, 1)
	}
	if s.Datagrams {
		put(settingDatagram, 1)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Other)) {
		if !knownSetting(id) { // which may come once
			put(id, s.Other[id])
		}
	}
	return dst
}

// parseSettings parses the payload of a SETTINGS frame.
func parseSettings(p []byte) (Settings, error) {
	var s Settings
	seen := make(map[uint64]bool)
	for len(p) > 0 {
		id, n := parseVarint(p)
		v, m := parseVarint(p[n:])
		if n == 0 || m == 0 {
			return s, connError(ErrFrame, "SETTINGS frame ends within a setting")
		}
		p = p[n+m:]
		if seen[id] {
			return s, connError(ErrSettings, "setting %#x twice", id)
		}
		if seen[id] = true; len(seen) > maxSettings {
			return s, connError(ErrExcessiveLoad, "more than %d settings", maxSettings)
		}
		flag := func(f *bool) error {
			if v > 1 {
				return connError(ErrSettings, "setting %#x is %d", id, v)
			}
			*f = v == 1
			return nil
		}
		var err error
		switch {
		case reservedSetting(id):
			err = connError(ErrSettings, "reserved setting %#x", id)
		case id == settingMaxFieldSection:
			// No limit is said by leaving the setting out, and 0 would refuse
			// every message: 1 does that too.
			s.MaxFieldSection = max(v, 1)
		case id == settingEnableConnect:
			err = flag(&s.ExtendedConnect)
		case id == settingDatagram:
			err = flag(&s.Datagrams)
		case id == settingMaxTableCapacity, id == settingBlockedStreams:
			// What the peer's decoder would allow an encoder with a dynamic
			// table.
		default:
			if s.Other == nil {
				s.Other = make(map[uint64]uint64)
			}
			s.Other[id] = v
		}
		if err != nil {
			return s, err
		}
	}
	if !seen[settingDatagram] {
		s.Datagrams = s.Other[settingOldDatagram] == 1
	}
	return s, nil
}
