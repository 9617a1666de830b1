package packet

// An Auth is a step of an enhanced authentication (MQTT 5, Sections 3.15 and
// 4.12). There is none before MQTT 5.
type Auth struct {
	Code       ReasonCode // Success, ContinueAuthentication or ReAuthenticate
	Properties *Properties
}

// Type returns AUTH.
func (*Auth) Type() Type { return AUTH }

func (a *Auth) decode(d *decoder, _ Version) error {
	a.Code, a.Properties = d.codeAndProperties()
	if d.err == nil {
		if err := a.check(); err != nil {
			d.fail(err)
		}
	}
	return d.end()
}

// check returns an error if the authentication method is missing. Section
// 3.15.2.2.2 requires it, and Section 3.15.2.1 has a form without any property
// for Success.
func (a *Auth) check() *Error {
	if a.Properties.present() == 0 && a.Code == Success {
		return nil
	}
	if a.Properties == nil || a.Properties.AuthMethod == "" {
		return violation("AUTH: no authentication method")
	}
	return nil
}

// Append encodes a.
func (a *Auth) Append(dst []byte, v Version) ([]byte, error) {
	if err := a.check(); err != nil {
		return dst, err
	}
	return appendTail(dst, AUTH, a.Code, a.Properties, v)
}
