"""Tables, figures and pages of a finished study, made from the files of its folder."""
