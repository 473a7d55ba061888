"""The doctor: looks at everything an installation rests on, changes nothing, and names what helps."""
